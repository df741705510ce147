"""The descriptions. Each is held by the tests in tests/unit/policy/families."""

from racro_pl.policy.families.base import Family
from racro_pl.policy.families.image_limits import limit_area, limit_edge, limit_tiles, limit_volume

KNOWN = (
    Family("qwen2_vl", limit_area),
    Family("qwen2_5_vl", limit_area),
    Family("qwen3_vl", limit_area),
    Family("qwen3_vl_moe", limit_area),
    Family("glm4v", limit_volume),
    Family("glm46v", limit_volume),
    Family("internvl", limit_tiles("max_patches", "min_patches")),
    Family("smolvlm", limit_edge),
    Family("idefics3", limit_edge),
    Family("llava"),
    Family("llava_next"),
    Family("llava_onevision"),
)
