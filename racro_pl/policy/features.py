"""What a vision tower makes of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ImageFeatures:
    """What the tower makes of some images, under the names that transformers reads them by."""

    pooler_output: tuple[Float[Tensor, "tokens hidden"], ...]
    """Per image, the embeddings that take the places of its tokens."""
    deepstack_features: tuple[tuple[Float[Tensor, "tokens hidden"], ...], ...] = ()
    """Per early layer of the language model and image, what is added there (Qwen3-VL)."""

    @property
    def bytes(self) -> int:
        """Memory of all tensors."""
        return sum(part.nbytes for layer in (self.pooler_output, *self.deepstack_features) for part in layer)

    def copy_to(self, device: torch.device) -> ImageFeatures:
        """A copy on ``device`` that shares no memory with this one, nor with the pass that it came from."""
        layers = [
            tuple(part.to(device, copy=True) for part in x) for x in (self.pooler_output, *self.deepstack_features)
        ]
        return ImageFeatures(layers[0], tuple(layers[1:]))


def join_features(features: Sequence[ImageFeatures]) -> dict[str, ImageFeatures] | None:
    """The features of several prompts as the ``mm_encoder_outputs`` of one forward; None without any image."""
    if not features:
        return None
    pooled = tuple(image for item in features for image in item.pooler_output)
    layers = zip(*(item.deepstack_features for item in features), strict=True)
    return {"image": ImageFeatures(pooled, tuple(tuple(i for images in layer for i in images) for layer in layers))}
