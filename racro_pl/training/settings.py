"""The ``objective`` section of a configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from racro_pl.losses import VARIANTS, Estimator, LossName, Variant
from racro_pl.types import Role, at_least, positive, require_all

ObjectiveName = Literal["cro", "qa", "vpo", "joint"]
QA_CLIP_HIGH = 0.25
"""Clip-higher of the paper's question-answering stage (RAPID)."""
FULL_LEARNING_RATE = 1e-6
"""The reference run's, for training all weights."""
LORA_LEARNING_RATE = 1e-5
"""Ten times as much: an adapter starts at zero and holds under a hundredth of the parameters, so the same step
moves the policy far less. Ten is the factor that RL trainers with adapters advise."""


@dataclass
class ObjectiveSettings:
    """What is learnt, and the GRPO update. Defaults are the reference run's, except where said."""

    name: ObjectiveName = "cro"
    """``cro``: captions, rewarded by the reasoner's success. ``vpo``: the same with a penalty on solutions in place of
    captions. ``qa``: the captioner's own boxed answers, without a reasoner. ``joint``: captions as in cro and
    answers as in qa to the same questions, in every step. See ``training/objectives.py``."""
    caption_penalty: float = 0.1
    """vpo only: the penalty (lambda) on the reward of a text that led to a right answer and holds no caption."""
    caption_judge: Literal["policy", "reasoner", "rule"] = "policy"
    """vpo only: what tells captions from solutions: the model that the run began with (as in the paper), the reasoner
    of ``reward`` (one more call per caption), or a rule of words."""
    answer_weight: float = 1.0
    """joint only: weight of the answers' loss beside that of the captions, each a mean over its own tokens."""
    answer_kl_coefficient: float = 0.0
    """joint only: the answers' ``kl_coefficient``; 0 as in qa, without a reference pass."""
    answer_clip_high: float | None = None
    """joint only: the answers' ``clip_high``; null: as in qa, 0.25 with grpo, else the loss's own."""
    learning_rate: float | None = None
    """null: 1e-6 for full fine-tuning (the reference's), 1e-5 for adapters."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's moment decays."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    warmup_updates: int = 0
    """Optimizer updates over which the learning rate rises linearly."""
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    """After the warm-up: ``constant`` (the reference run's), or ``linear``: falling step by step to zero at the run's
    last one (``trainer.max_steps``, or what ``max_epochs`` comes to)."""
    max_grad_norm: float = 1.0
    """Global gradient norm above which gradients are scaled down."""
    updates_per_rollout: int = 2
    """Optimizer updates per step: the step's questions are split into this many parts, one update each."""
    micro_batch_size: int = 8
    """Captions per forward and backward pass: as many whole groups as fit in, at least one. Changes memory and speed,
    not the result."""
    loss: LossName = "grpo"
    """``grpo`` (the reference), ``dapo``, ``dr_grpo`` or ``gspo``; sets the defaults of the next five, which are told
    for grpo, with the losses that differ in brackets. (``qa`` has clip_high 0.25 with grpo, and no KL term: the paper's
    recipe.)"""
    clip_low: float | None = None
    """How far the probability ratio may fall below 1; null: 0.2 (gspo 3e-4)."""
    clip_high: float | None = None
    """How far the probability ratio may rise above 1; null: 0.2 (dapo 0.28, gspo 4e-4)."""
    dual_clip: float | None = None
    """Bound on the ratio of captions with a negative advantage; null: 3 (others than grpo: .inf, which is none)."""
    kl_coefficient: float | None = None
    """Weight of the divergence from the reference; 0 also saves the reference pass. null: 1e-3 (dapo, dr_grpo: 0)."""
    kl: Estimator | None = None
    """How the divergence is estimated: ``k1``, ``k2`` or ``k3``; null: k3. k1 has zero expected gradient."""
    refill_rounds: int = 0
    """How often in a step groups without signal (all captions right, or all wrong) are replaced by groups of further
    questions. 0: never, as in the reference run; see training/rollouts.py for what it changes.
    Experimental: no published configuration or experiment uses it."""
    sample_ahead: bool = False
    """Learn from the captions of the step before, while this step's are sampled and answered: no one waits for a slow
    reasoner, and a vLLM samples while the trainer learns. They are one step old, which the importance weights correct.
    The first step, also after a resume, only samples.
    Experimental: no published configuration or experiment uses it."""
    importance: Literal["token", "sequence"] = "token"
    """Importance ratio of policy and sampler, per token or sequence, where another engine (vLLM) sampled."""
    importance_cap: float = 2.0
    """Largest such weight; larger ratios are cut to it."""

    def __post_init__(self) -> None:
        values = {**vars(self), **self.resolved()}
        counts = ("updates_per_rollout", "micro_batch_size")
        amounts = ("warmup_updates", "weight_decay", "kl_coefficient", "clip_high", "refill_rounds",
                   "answer_kl_coefficient", "answer_clip_high")  # fmt: skip
        require_all(
            "objective",
            *at_least(1, **{name: values[name] for name in counts}),
            *at_least(0, **{name: values[name] for name in amounts}),
            (
                not (self.sample_ahead and self.refill_rounds),
                "refill_rounds waits for rewards before it learns, which sample_ahead avoids; use only one",
            ),
            (
                self.name != "joint" or not (self.sample_ahead or self.refill_rounds),
                "sample_ahead and refill_rounds are for groups of one kind, and joint has captions and answers; leave "
                "them out, or train with cro and qa one after the other",
            ),
            (0 <= self.caption_penalty <= 1, f"caption_penalty is {self.caption_penalty}; expected between 0 and 1"),
            *positive(
                learning_rate=self.learning_rate, max_grad_norm=self.max_grad_norm, answer_weight=self.answer_weight
            ),
            *at_least(1, importance_cap=self.importance_cap),
            (0 <= values["clip_low"] <= 1, f"clip_low is {values['clip_low']}; expected between 0 and 1"),
            (values["dual_clip"] > 1, f"dual_clip is {values['dual_clip']}; expected more than 1 (.inf for none)"),
        )

    @property
    def roles(self) -> tuple[Role, ...]:
        """What every question is asked for; metrics without a prefix, and validation accuracy, are the first one's."""
        return {"qa": ("answer",), "joint": ("caption", "answer")}.get(self.name, ("caption",))  # type: ignore[return-value]

    @property
    def variant(self) -> Variant:
        """The loss with its numbers, of the first role."""
        return self.variant_of(self.roles[0])

    def variant_of(self, role: Role) -> Variant:
        """The loss of captions or answers with its numbers: those given here, else defaults of ``loss`` and role."""
        default = VARIANTS[self.loss]
        if role == "answer":
            default = replace(default, kl_coefficient=0.0)
            if self.loss == "grpo":
                default = replace(default, clip_high=QA_CLIP_HIGH)
        given = {name: getattr(self, name) for name in _OF_THE_LOSS}
        if role != self.roles[0]:
            given |= {"kl_coefficient": self.answer_kl_coefficient, "clip_high": self.answer_clip_high}
        return replace(default, **{name: value for name, value in given.items() if value is not None})

    def resolved(self) -> dict[str, Any]:
        """The settings that null leaves to the loss, with the values that they have in this run."""
        answers = {"answer_clip_high": self.variant_of("answer").clip_high} if self.name == "joint" else {}
        return {name: getattr(self.variant, name) for name in _OF_THE_LOSS} | answers


_OF_THE_LOSS = ("clip_low", "clip_high", "dual_clip", "kl_coefficient", "kl")
