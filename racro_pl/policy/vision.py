"""Images through the vision tower, once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from racro_pl.policy.features import ImageFeatures
from racro_pl.policy.image_cache import ImageCache, Images
from racro_pl.types import Prompt

GRIDS = "image_grid_thw"
"""Frames, rows and columns of patches of every image."""


def encode_images(model: Any, prompts: Sequence[Prompt]) -> list[ImageFeatures]:
    """The features of those prompts that have images, in order.

    All in one pass through the tower where images are patches with their grids (Qwen-VL, GLM-V): they follow each
    other without a border. Elsewhere tiles are padded to each other, or counted from the start of the batch, so every
    prompt has a pass of its own.

    Args:
        model: a transformers model with ``get_image_features``.
        prompts: with or without images.
    """
    prompts = [prompt for prompt in prompts if prompt.vision]
    if any(GRIDS not in prompt.vision for prompt in prompts):
        return [_encode(model, prompt.vision) for prompt in prompts]
    if not prompts:
        return []
    together = {name: torch.cat([prompt.vision[name] for prompt in prompts]) for name in ("pixel_values", GRIDS)}
    out = _encode(model, together)
    features, start = [], 0
    for prompt in prompts:
        own = slice(start, start + len(prompt.vision[GRIDS]))
        features.append(ImageFeatures(out.pooler_output[own], tuple(layer[own] for layer in out.deepstack_features)))
        start = own.stop
    return features


def _encode(model: Any, vision: Mapping[str, Tensor]) -> ImageFeatures:
    taken = signature(model.model.get_image_features).parameters
    inputs = {name: tensor.to(model.device) for name, tensor in vision.items() if name in taken}
    out = model.model.get_image_features(**inputs, return_dict=True)
    pooled = out.pooler_output if isinstance(out.pooler_output, Tensor) else tuple(out.pooler_output)
    deepstack = getattr(out, "deepstack_features", None) or ()
    return ImageFeatures(pooled, tuple(tuple(layer) for layer in deepstack))


class ImageMemory:
    """Remembers what a frozen tower made of images: of a prompt's within :meth:`remembering`, and maybe beyond it.

    Args:
        cache: keeps features from step to step; None for not at all.
    """

    def __init__(self, cache: ImageCache | None = None) -> None:
        self.cache = cache
        self._kept: dict[int, tuple[Prompt, ImageFeatures]] | None = None
        """By the identity of what the processor made of the images, which the prompt beside it keeps alive."""
        self._images: WeakKeyDictionary[Prompt, Images] = WeakKeyDictionary()

    def name(self, prompt: Prompt, images: Images) -> None:
        """Say which images are in a prompt: without that, the cache does not know it again."""
        if self.cache is not None and images:
            self._images[prompt] = images

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
        seeing = [prompt for prompt in prompts if prompt.vision]
        unseen = list({id(prompt.vision): prompt for prompt in seeing if id(prompt.vision) not in kept}.values())
        if self.cache is None:
            found = encode_images(model, unseen)
        else:
            found = [self._recall(self.cache, model, prompt) for prompt in unseen]
        kept.update((id(prompt.vision), (prompt, features)) for prompt, features in zip(unseen, found, strict=True))
        return [kept[id(prompt.vision)][1] for prompt in seeing]

    def _recall(self, cache: ImageCache, model: Any, prompt: Prompt) -> ImageFeatures:
        # One prompt at a time: the last bits of a product may depend on how many rows it has, and a run that was
        # resumed, with an empty cache, must see what the run that went on saw.
        images = self._images.get(prompt)
        known = cache.get(images, model.device) if images is not None else None
        if known is not None:
            return known
        features = encode_images(model, [prompt])[0]
        if images is not None:
            cache.put(images, features)
        return features
