"""Images through the vision tower, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from racro_pl.types import Prompt


@dataclass(frozen=True)
class ImageFeatures:
    """What the tower makes of some images, under the names that transformers reads them by."""

    pooler_output: tuple[Float[Tensor, "tokens hidden"], ...]
    """Per image, the embeddings that take the places of its tokens."""
    deepstack_features: tuple[tuple[Float[Tensor, "tokens hidden"], ...], ...] = ()
    """Per early layer of the language model and image, what is added there (Qwen3-VL)."""


def encode_images(model: Any, prompts: Sequence[Prompt]) -> list[ImageFeatures]:
    """The features of those prompts that have images, in order, all in one pass through the tower.

    Args:
        model: a transformers model with ``get_image_features``.
        prompts: with or without images.
    """
    prompts = [prompt for prompt in prompts if prompt.pixel_values is not None]
    if not prompts:
        return []
    pixels = torch.cat([prompt.pixel_values for prompt in prompts])  # type: ignore[misc]
    grids = torch.cat([prompt.image_grid_thw for prompt in prompts])  # type: ignore[misc]
    out = model.get_image_features(pixels.to(model.device), grids.to(model.device), return_dict=True)
    deepstack = getattr(out, "deepstack_features", None) or ()
    features, start = [], 0
    for prompt in prompts:
        own = slice(start, start + len(prompt.image_grid_thw))  # type: ignore[arg-type]
        features.append(ImageFeatures(tuple(out.pooler_output[own]), tuple(tuple(layer[own]) for layer in deepstack)))
        start = own.stop
    return features


def join_features(features: Sequence[ImageFeatures]) -> dict[str, ImageFeatures] | None:
    """The features of several prompts as the ``mm_encoder_outputs`` of one forward; None without any image."""
    if not features:
        return None
    pooled = tuple(image for item in features for image in item.pooler_output)
    layers = zip(*(item.deepstack_features for item in features), strict=True)
    return {"image": ImageFeatures(pooled, tuple(tuple(i for images in layer for i in images) for layer in layers))}


class ImageMemory:
    """Remembers what a frozen tower made of a prompt's images, within :meth:`remembering` and only there."""

    def __init__(self) -> None:
        self._kept: dict[Prompt, ImageFeatures] | None = None

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """From here on every image goes through the tower once; at the end the memory is given back."""
        self._kept = {}
        try:
            yield
        finally:
            self._kept = None

    @torch.no_grad()
    def look(self, model: Any, prompts: Sequence[Prompt]) -> list[ImageFeatures]:
        """The features of those prompts that have images, in order, without gradient."""
        kept = {} if self._kept is None else self._kept
        seeing = [prompt for prompt in prompts if prompt.pixel_values is not None]
        unseen = [prompt for prompt in dict.fromkeys(seeing) if prompt not in kept]
        kept.update(zip(unseen, encode_images(model, unseen), strict=True))
        return [kept[prompt] for prompt in seeing]
