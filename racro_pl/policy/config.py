"""The ``policy`` section of a configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class LoraSettings:
    """Low-rank adapters on the linear layers of the language model."""

    rank: int = 16
    """Rank of every adapter."""
    alpha: int = 32
    """Scale: adapters add ``alpha / rank`` times their product."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"policy.lora.rank is {self.rank}; expected at least 1")


@dataclass
class PolicySettings:
    """The captioner: which weights, how they are stored, and what of them is trained."""

    path: str
    """Folder or hub id of an image-text-to-text model (families: docs/models.md), or ``embedded:figure-captioner``."""
    quantization: Literal["none", "nf4"] = "none"
    """``nf4``: 4-bit base with double quantisation and bf16 compute (QLoRA); the vision tower stays as it is."""
    lora: LoraSettings | None = field(default_factory=LoraSettings)
    """null trains the weights themselves, in float32, with a frozen copy as reference."""
    adapter: str | None = None
    """Another stage's adapter to start from: a PEFT folder, a run's folder, or a checkpoint file. It must have the
    rank and alpha of ``lora``, and is also the reference of the KL term."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the base weights. Adapters are always float32, and so are weights that are trained themselves: with
    ``trainer.precision: bf16-mixed`` they compute in bfloat16 all the same."""
    freeze_vision: bool = True
    """Keep the vision tower as it is. Only full fine-tuning can train it."""
    image_cache_mib: int = 0
    """Main memory (MiB, on every rank) for what the frozen vision tower made of images, from step to step: those that
    come again skip it. An image of 1,000 tokens takes 4 MiB (3B) or 7 MiB (7B). 0 keeps nothing beyond a step."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass (non-reentrant): a third more time for much less memory."""
    min_pixels: int = 512 * 512
    """Smaller images are scaled up to this width * height (the reference's value). Of no effect where a family's
    processor cuts tiles or has fixed sizes."""
    max_pixels: int = 2048 * 2048
    """Larger images are scaled down to this width * height (the reference's value). Where a family's processor cuts
    tiles, it bounds their number; where sizes are fixed it has no effect."""

    def __post_init__(self) -> None:
        problems = []
        if self.quantization != "none" and self.lora is None:
            problems.append(
                "quantization needs LoRA: 4-bit weights cannot be trained; set policy.lora or quantization: none"
            )
        if self.lora is not None and not self.freeze_vision:
            problems.append(
                "freeze_vision: false needs full fine-tuning (lora: null): adapters sit on language layers only"
            )
        if self.lora is None and self.dtype != "float32":
            problems.append(
                f"full fine-tuning (lora: null) with dtype {self.dtype} loses nearly all of an update: at a learning "
                "rate of 1e-6 it is below half a rounding step of most weights; set dtype: float32, and "
                "trainer.precision: bf16-mixed to compute in bfloat16"
            )
        if self.image_cache_mib < 0:
            problems.append(f"image_cache_mib is {self.image_cache_mib}; expected 0 or more")
        if self.image_cache_mib and not self.freeze_vision:
            problems.append("image_cache_mib needs freeze_vision: a trained tower encodes images in every pass")
        if self.adapter is not None and self.lora is None:
            problems.append("an adapter to start from needs policy.lora")
        if not 0 < self.min_pixels <= self.max_pixels:
            problems.append(f"min_pixels {self.min_pixels} and max_pixels {self.max_pixels}; expected 0 < min <= max")
        if problems:
            raise ValueError("policy: " + "; ".join(problems))
