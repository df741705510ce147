"""Images through the vision tower, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch

from racro_pl.policy.features import ImageFeatures
from racro_pl.policy.image_cache import ImageCache, Images
from racro_pl.types import Prompt


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


class ImageMemory:
    """Remembers what a frozen tower made of images: of a prompt's within :meth:`remembering`, and maybe beyond it.

    Args:
        cache: keeps features from step to step; None for not at all.
    """

    def __init__(self, cache: ImageCache | None = None) -> None:
        self.cache = cache
        self._kept: dict[Prompt, ImageFeatures] | None = None
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
        seeing = [prompt for prompt in prompts if prompt.pixel_values is not None]
        unseen = [prompt for prompt in dict.fromkeys(seeing) if prompt not in kept]
        if self.cache is None:
            kept.update(zip(unseen, encode_images(model, unseen), strict=True))
        else:
            kept.update((prompt, self._recall(self.cache, model, prompt)) for prompt in unseen)
        return [kept[prompt] for prompt in seeing]

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
