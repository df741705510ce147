"""The ``objective`` section of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FULL_LEARNING_RATE = 1e-6
"""The reference run's, for training all weights."""
LORA_LEARNING_RATE = 1e-5
"""Ten times as much: an adapter starts at zero and holds under a hundredth of the parameters, so the same step
moves the policy far less. Ten is the factor that RL trainers with adapters advise."""


@dataclass
class ObjectiveSettings:
    """The GRPO update. Defaults are the reference run's, except where said."""

    learning_rate: float | None = None
    """null: 1e-6 for full fine-tuning (the reference's), 1e-5 for adapters."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's moment decays."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    warmup_updates: int = 0
    """Optimizer updates over which the learning rate rises linearly; constant afterwards."""
    max_grad_norm: float = 1.0
    """Global gradient norm above which gradients are scaled down."""
    updates_per_rollout: int = 2
    """Optimizer updates per step: the step's questions are split into this many parts, one update each."""
    micro_batch_size: int = 8
    """Captions per forward and backward pass, rounded up to whole groups. Changes memory and speed, not the result."""
    clip_low: float = 0.2
    """How far the probability ratio may fall below 1."""
    clip_high: float = 0.2
    """How far the probability ratio may rise above 1."""
    dual_clip: float = 3.0
    """Bound on the ratio of captions with a negative advantage."""
    kl_coefficient: float = 1e-3
    """Weight of the k3 divergence from the reference, per token; 0 also saves the reference pass."""
    refill_rounds: int = 0
    """How often in a step groups without signal (all captions right, or all wrong) are replaced by groups of further
    questions. 0: never, as in the reference run; see training/refill.py for what it changes."""
    sample_ahead: bool = False
    """Learn from the captions of the step before, while this step's are sampled and answered: nobody waits for a slow
    reasoner, and a vLLM samples while the trainer learns. They are one step old, which the importance weights correct.
    The first step, also after a resume, only samples."""
    importance: Literal["token", "sequence"] = "token"
    """Over what the ratio of policy and sampler is taken where another engine (vLLM) sampled the captions."""
    importance_cap: float = 2.0
    """Largest such weight; larger ratios are cut to it."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)}; expected {least} or more"
            for name, least in (
                ("updates_per_rollout", 1), ("micro_batch_size", 1), ("warmup_updates", 0), ("weight_decay", 0),
                ("kl_coefficient", 0), ("clip_high", 0), ("refill_rounds", 0),
            )
            if getattr(self, name) < least
        ]  # fmt: skip
        if self.sample_ahead and self.refill_rounds:
            problems.append("refill_rounds waits for rewards before it learns, which sample_ahead avoids; use only one")
        if self.learning_rate is not None and not self.learning_rate > 0:
            problems.append(f"learning_rate is {self.learning_rate}; expected more than 0, or null for the default")
        if not self.max_grad_norm > 0:
            problems.append(f"max_grad_norm is {self.max_grad_norm}; expected more than 0")
        if not self.importance_cap >= 1:
            problems.append(f"importance_cap is {self.importance_cap}; expected 1 or more")
        if not 0 <= self.clip_low <= 1:
            problems.append(f"clip_low is {self.clip_low}; expected between 0 and 1")
        if not self.dual_clip > 1:
            problems.append(f"dual_clip is {self.dual_clip}; expected more than 1")
        if problems:
            raise ValueError("objective: " + "; ".join(problems))
