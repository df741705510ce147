"""The descriptions. Each is held by the tests in tests/unit/policy/families."""

from racro_pl.policy.families.base import Family
from racro_pl.policy.families.image_limits import limit_area, limit_edge, limit_soft_tokens, limit_tiles, limit_volume

DELTA_NET, SHORT_CONVOLUTION = "GatedDeltaNet", "ShortConv"
NO_TWO_WAY = "it may attend within an image one way only, as on a CPU, where log-probs are off by 0.2 to 0.4 nats"
BFLOAT16_ALONE = "it was only tried in bfloat16, on a CPU: too coarse to tell equal log-probs from others"
UNKNOWN_THERE = "vLLM 0.32 does not know its architecture"
FAR_OFF = "log-probs were off by nats in the one trial"

KNOWN = (
    Family("qwen2_vl", limit_area, vllm=()),
    Family("qwen2_5_vl", limit_area, vllm=()),
    Family("qwen3_vl", limit_area, vllm=()),
    Family("qwen3_vl_moe", limit_area),
    Family("glm4v", limit_volume, vllm=("size",)),
    Family("glm46v", limit_volume),
    Family("internvl", limit_tiles("max_patches", "min_patches"), vllm=("max_patches", "min_patches")),
    Family("smolvlm", limit_edge, vllm=("size",)),
    Family("idefics3", limit_edge, vllm=("size",)),
    Family("llava", vllm=()),
    Family("llava_next", vllm=()),
    Family("llava_onevision", vllm="its class there takes no LoRA"),
    Family("mistral3", limit_edge, vllm=("size",)),
    Family("gemma3", two_way="image", vllm=NO_TWO_WAY),
    Family("gemma4", limit_soft_tokens, two_way="image, in windows, if the config says so", vllm=NO_TWO_WAY),
    Family("molmo2", limit_tiles("max_crops"), two_way="all images", transformers="5.20", vllm=UNKNOWN_THERE),
    Family("qwen3_5", limit_area, recurrent=DELTA_NET, vllm=BFLOAT16_ALONE),
    Family("qwen3_5_moe", limit_area, recurrent=DELTA_NET),
    Family("lfm2_vl", limit_tiles("max_tiles", "min_tiles"), recurrent=SHORT_CONVOLUTION, vllm=FAR_OFF),
    Family("minicpmv4_6", limit_tiles("max_slice_nums"), recurrent=DELTA_NET, transformers="5.20", vllm=BFLOAT16_ALONE),
)
