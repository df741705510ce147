"""How ``policy.min_pixels`` and ``max_pixels`` reach a family's image processor: through its own knobs.

Only Qwen-VL's and GLM-V's processors scale an image to any area. The others cut it into tiles, or know a few sizes:
there ``max_pixels`` bounds what the processor would do by itself and never makes it do more, and ``min_pixels`` has no
meaning. A processor that always makes the same size is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Any

ImageLimit = Callable[[Any, int, int], None]
"""(image processor, fewest pixels, most pixels): sets the processor's attributes."""
SOFT_TOKENS = (70, 140, 280, 560, 1120)
"""The numbers of tokens that Gemma 4 knows for an image."""


def limit_area(processor: Any, low: int, high: int) -> None:
    """``size`` holds areas under the names of edges (Qwen-VL)."""
    processor.size = {"shortest_edge": low, "longest_edge": high}


def limit_volume(processor: Any, low: int, high: int) -> None:
    """As :func:`limit_area`, over all frames; a still image fills several alike (GLM-V)."""
    frames = processor.temporal_patch_size
    processor.size = {"shortest_edge": low * frames, "longest_edge": high * frames}


def limit_edge(processor: Any, low: int, high: int) -> None:
    """The longer edge is scaled to one length (Pixtral), a multiple of the tile's where it is tiled (Idefics 3)."""
    tile = (getattr(processor, "max_image_size", None) or {}).get("longest_edge", 1)
    edge = max(1, isqrt(high) // tile) * tile
    processor.size = {"longest_edge": min(processor.size["longest_edge"], edge)}


def limit_tiles(most: str, fewest: str | None = None) -> ImageLimit:
    """The image is cut into square tiles.

    Args:
        most: attribute that holds the largest number of tiles.
        fewest: the one that holds the smallest, if there is one.
    """

    def limit(processor: Any, low: int, high: int) -> None:
        tiles = max(1, min(getattr(processor, most), high // _tile_area(processor)))
        setattr(processor, most, tiles)
        if fewest is not None:
            setattr(processor, fewest, min(getattr(processor, fewest), tiles))

    return limit


def limit_soft_tokens(processor: Any, low: int, high: int) -> None:
    """The image is scaled to one of a few numbers of tokens (Gemma 4)."""
    pixels = (processor.patch_size * processor.pooling_kernel_size) ** 2
    bound = min(processor.max_soft_tokens, high // pixels)
    processor.max_soft_tokens = max((number for number in SOFT_TOKENS if number <= bound), default=SOFT_TOKENS[0])


def leave_size(processor: Any, low: int, high: int) -> None:
    """The processor's sizes are fixed by the model (LLaVA, Gemma 3)."""


def _tile_area(processor: Any) -> int:
    for name in ("tile_size", "scale_resolution"):
        if getattr(processor, name, None):
            return int(getattr(processor, name)) ** 2
    return int(processor.size["height"]) * int(processor.size["width"])
