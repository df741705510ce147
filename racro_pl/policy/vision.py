"""Images through the vision tower, once, and what it makes of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from racro_pl.types import ImageRef, Prompt

Images = tuple[ImageRef, ...]
"""A question's images name their features: files are taken not to change while a run lasts."""
GRIDS = "image_grid_thw"
"""Frames, rows and columns of patches of every image."""


@dataclass(frozen=True)
class ImageFeatures:
    """What the tower makes of some images, under the names that transformers reads them by."""

    pooler_output: tuple[Float[Tensor, "*shape"], ...] | Float[Tensor, "*shape"]
    """The embeddings that take the places of image tokens. As the family has it: one tensor per image, tile, slice or
    prompt, or all tiles in one tensor (tiles, tokens, hidden)."""
    deepstack_features: tuple[tuple[Float[Tensor, "tokens hidden"], ...], ...] = ()
    """Per early layer of the language model and image, what is added there (Qwen3-VL)."""

    @property
    def bytes(self) -> int:
        """Memory of all tensors."""
        pooled = [self.pooler_output] if isinstance(self.pooler_output, Tensor) else self.pooler_output
        return sum(part.nbytes for layer in (pooled, *self.deepstack_features) for part in layer)

    def copy_to(self, device: torch.device) -> ImageFeatures:
        """A copy on ``device`` that shares no memory with this one, nor with the pass that it came from."""

        def copied(layer: Sequence[Tensor]) -> tuple[Tensor, ...]:
            return tuple(part.to(device, copy=True) for part in layer)

        one = isinstance(self.pooler_output, Tensor)
        pooled = copied([self.pooler_output])[0] if one else copied(self.pooler_output)  # type: ignore[arg-type, list-item]
        return ImageFeatures(pooled, tuple(copied(layer) for layer in self.deepstack_features))


def join_features(features: Sequence[ImageFeatures]) -> dict[str, ImageFeatures] | None:
    """The features of several prompts as the ``mm_encoder_outputs`` of one forward; None without any image."""
    if not features:
        return None
    tensors = [item.pooler_output for item in features if isinstance(item.pooler_output, Tensor)]
    pooled: tuple[Tensor, ...] | Tensor
    # Lists are added, tensors follow each other: what each family's forward takes.
    pooled = torch.cat(tensors) if tensors else tuple(part for item in features for part in item.pooler_output)
    layers = zip(*(item.deepstack_features for item in features), strict=True)
    return {"image": ImageFeatures(pooled, tuple(tuple(i for images in layer for i in images) for layer in layers))}


def encode_images(model: Any, prompts: Sequence[Prompt]) -> list[ImageFeatures]:
    """The features of those prompts that have images, in order.

    All in one pass through the tower where images are patches with their grids (Qwen-VL, GLM-V): they follow each
    other without a border. Elsewhere tiles are padded to each other, or counted from the start of the batch, so every
    prompt has a pass of its own.

    Args:
        model: a transformers model with ``get_image_features``.
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


class ImageCache:
    """Features by image, in main memory; when there is no room, those that were not asked for longest leave.

    Each rank has its own: nothing is exchanged.

    Args:
        limit: bound in bytes. Features that alone exceed it are not kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._kept: OrderedDict[Images, ImageFeatures] = OrderedDict()
        self._asked = self._found = 0

    def get(self, images: Images, device: torch.device) -> ImageFeatures | None:
        """The features on ``device``, bit for bit as they were put, or None."""
        self._asked += 1
        features = self._kept.get(images)
        if features is None:
            return None
        self._found += 1
        self._kept.move_to_end(images)
        return features.copy_to(device)

    def put(self, images: Images, features: ImageFeatures) -> None:
        """Keep a copy of features that :meth:`get` did not find."""
        size = features.bytes
        if size > self.limit:
            return
        while self.bytes + size > self.limit:
            _, oldest = self._kept.popitem(last=False)
            self.bytes -= oldest.bytes
        self._kept[images] = features.copy_to(torch.device("cpu"))
        self.bytes += size

    def drain_metrics(self) -> dict[str, float]:
        """Share of images found since the last call, and the memory in use (MiB)."""
        share = self._found / self._asked if self._asked else 0.0
        self._asked = self._found = 0
        return {"cache_hit_share": share, "cache_mib": self.bytes / 2**20}


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
