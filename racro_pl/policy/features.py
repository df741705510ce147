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
