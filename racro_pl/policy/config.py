"""The ``policy`` section of a configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from racro_pl.types import at_least, require_all


@dataclass
class LoraSettings:
    """Low-rank adapters on the linear layers of the language model."""

    rank: int = 16
    """Rank of every adapter."""
    alpha: int = 32
    """Scale: adapters add ``alpha / rank`` times their product."""
    experts: bool = False
    """Also adapt the stacked experts of a mixture model (PEFT's ``target_parameters``), each with its own matrices of
    this rank. They are not quantised by ``nf4``, and take ``TransformersEngine`` and the ddp strategy."""

    def __post_init__(self) -> None:
        require_all("policy.lora", *at_least(1, rank=self.rank))


@dataclass
class PolicySettings:
    """The captioner: which weights, how they are stored, and what of them is trained."""

    path: str
    """Folder or hub id of an image-text-to-text model (families: docs/models.md), or ``embedded:figure-captioner``."""
    quantization: Literal["none", "nf4"] = "none"
    """``nf4``: 4-bit base with double quantisation, unpacked to ``dtype`` to compute (QLoRA); the vision tower stays as
    it is."""
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
    come again skip it. An image of 1,000 tokens takes 4 MiB (3B) or 7 MiB (7B). 0 keeps nothing beyond a step.

    Experimental: no published configuration uses it."""
    thinking: bool | None = None
    """Whether the chat template lets the model think first (``enable_thinking``, as of Qwen3.5); null leaves it to the
    template. What is thought is never part of a caption."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass (non-reentrant): a third more time for much less memory."""
    min_pixels: int = 512 * 512
    """Smaller images are scaled up to this width * height (the reference's value). Of no effect where a family's
    processor cuts tiles or has fixed sizes."""
    max_pixels: int = 2048 * 2048
    """Larger images are scaled down to this width * height (the reference's value). Where a family's processor cuts
    tiles, it bounds their number; where sizes are fixed it has no effect."""

    def __post_init__(self) -> None:
        trains_weights = self.lora is None
        require_all(
            "policy",
            (
                self.quantization == "none" or not trains_weights,
                "quantization needs LoRA: 4-bit weights cannot be trained; set policy.lora or quantization: none",
            ),
            (
                self.freeze_vision or trains_weights,
                "freeze_vision: false needs full fine-tuning (lora: null): adapters sit on language layers only",
            ),
            (
                self.dtype == "float32" or not trains_weights,
                f"full fine-tuning (lora: null) with dtype {self.dtype} loses nearly all of an update: at a learning "
                "rate of 1e-6 it is below half a rounding step of most weights; set dtype: float32, and "
                "trainer.precision: bf16-mixed to compute in bfloat16",
            ),
            *at_least(0, image_cache_mib=self.image_cache_mib),
            (
                self.freeze_vision or self.image_cache_mib <= 0,
                "image_cache_mib needs freeze_vision: a trained tower encodes images in every pass",
            ),
            (self.adapter is None or not trains_weights, "an adapter to start from needs policy.lora"),
            (
                0 < self.min_pixels <= self.max_pixels,
                f"min_pixels {self.min_pixels} and max_pixels {self.max_pixels}; expected 0 < min <= max",
            ),
        )
