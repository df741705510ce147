"""The sizes of a vision tower that memory formulas need, from configs that name them in several ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tower:
    """What a block of the tower works on."""

    width: int
    """Hidden size."""
    inner: int
    """Width of the MLP."""
    patch_values: int
    """Numbers in a patch: colours, frames, pixels."""
    patch_pixels: int
    """Pixels of the image that a patch covers."""
    patches_per_token: int
    """Patches that become one token of the language model; 1 where the config does not say it in a known way."""


def tower_of(config: Any) -> Tower:
    """Read it off a model's config."""
    vision = config.vision_config

    def field(*names: str, default: Any = None) -> Any:
        """The first of these that the config has."""
        return next((found for name in names if (found := getattr(vision, name, None)) is not None), default)

    # Qwen2-VL's ``hidden_size`` is that of the language model.
    width = field("embed_dim", "hidden_size")
    inner = field("intermediate_size", default=round(width * field("mlp_ratio", default=4)))
    patch = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
    channels, frames = field("in_channels", "num_channels", default=3), field("temporal_patch_size", default=1)
    return Tower(width, inner, channels * frames * patch**2, patch**2, _patches_per_token(config, patch))


def _patches_per_token(config: Any, patch: int) -> int:
    for owner in (config.vision_config, config):
        for name in ("spatial_merge_size", "scale_factor", "downsample_factor", "pooling_kernel_size"):
            factor = getattr(owner, name, None)
            if isinstance(factor, int):
                return factor**2
    ratio, tokens = getattr(config, "downsample_ratio", None), getattr(config, "mm_tokens_per_image", None)
    if ratio:
        return round(1 / ratio**2)
    if tokens:
        return (config.vision_config.image_size // patch) ** 2 // tokens
    return 1
