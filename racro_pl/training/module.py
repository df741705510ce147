"""The RACRO training step on Lightning.

One step, for B questions with G captions each: sample captions, let the frozen reasoner answer from each caption
alone, reward a caption with 1 when that answer is right, and move the captioner by GRPO. This module alone knows
the order; every station it calls can be used and tested without a Trainer. Start reading at ``training_step``.

Manual optimization: a step makes one or more optimizer updates. Lightning counts *steps*: ``global_step``,
``max_steps``, checkpoint cadence and the loggers' axis all advance by one per step, however many updates it makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

from racro_pl.experience import Draft, assemble, draft
from racro_pl.losses import grpo_loss
from racro_pl.policy.config import PolicySettings
from racro_pl.reward.scorer import PendingRewards, Scorer, UnscoredError
from racro_pl.rollout import RolloutEngine
from racro_pl.training.base import CaptionerModule
from racro_pl.training.gradients import all_reduce, normalise_gradients, reduce_counts
from racro_pl.training.meter import TOKEN_SUMS, StepMeter
from racro_pl.training.settings import FULL_LEARNING_RATE, LORA_LEARNING_RATE, ObjectiveSettings
from racro_pl.types import Question, Rewards, Rollout

PendingGroup = tuple[Rollout, PendingRewards]


class RacroModule(CaptionerModule):
    """Captioner, reasoner and objective, wired into Lightning.

    Args:
        policy: the captioner: weights, quantisation, adapters.
        rollout: the engine that samples captions.
        reward: the reasoner and how its answers become rewards.
        objective: the GRPO update.
    """

    def __init__(
        self,
        policy: PolicySettings,
        rollout: RolloutEngine,
        reward: Scorer,
        objective: ObjectiveSettings = ObjectiveSettings(),  # noqa: B008 (never modified)
    ) -> None:
        super().__init__(policy, rollout, reward)
        self.automatic_optimization = False
        self.objective = objective
        self.last_step: list[tuple[Rollout, Rewards]] = []
        """The groups of the step just made, for callbacks."""
        self._tokens = 0.0
        """Tokens whose gradients were summed since the last update, on this rank."""
        self._stop: UnscoredError | None = None

    def training_step(self, questions: list[Question], batch_idx: int) -> None:
        """Sample, score, learn; an image is looked at once for all of it."""
        with self.captioner.seeing_once():
            self._step(questions, StepMeter())

    def _step(self, questions: list[Question], meter: StepMeter) -> None:
        groups = list(self._sample(questions, meter))
        parts = _split(groups, self.objective.updates_per_rollout)
        # Log-probs need no reward: they are taken while the reasoner is still answering. Only the first part is
        # learnt from before any update, so only there are the policy's own log-probs the old ones.
        drafts = [self._draft(part, meter, old=index > 0) for index, part in enumerate(parts)]
        scored: list[Rewards] = []
        for index, (part, part_drafts) in enumerate(zip(parts, drafts, strict=True)):
            for micro_batch, pending in zip(self._micro_batches(part), part_drafts, strict=True):
                rewards = self._await_rewards(micro_batch, meter)
                self._accumulate(pending, rewards, meter)
                scored += rewards
            self._update(meter, last=index == len(parts) - 1)
        self._finish_step([rollout for rollout, _ in groups], scored, meter)

    def _sample(self, questions: Sequence[Question], meter: StepMeter) -> Iterator[PendingGroup]:
        """Sample group after group; each goes to the reasoner at once."""
        with meter.phase("sample"):
            encoded = self.encode_readable(questions)
        meter.add(dropped=len(questions) - len(encoded))
        rollouts = self.engine.sample(self.captioner, encoded, self.updates_done)
        while True:
            with meter.phase("sample"):
                rollout = next(rollouts, None)
            if rollout is None:
                return
            yield rollout, self.scorer.submit(rollout.question, rollout.texts, self.step_seed)

    def _micro_batches(self, groups: Sequence[PendingGroup]) -> Iterator[Sequence[PendingGroup]]:
        size = max(1, self.objective.micro_batch_size // self.engine.group_size)
        for start in range(0, len(groups), size):
            yield groups[start : start + size]

    def _draft(self, groups: Sequence[PendingGroup], meter: StepMeter, *, old: bool) -> list[Draft]:
        with meter.phase("logprobs"):
            drafts = [
                draft(
                    self.captioner,
                    [rollout for rollout, _ in micro_batch],
                    old=old,
                    reference=self.objective.kl_coefficient > 0,
                    temperature=self.engine.temperature,
                    level=self.objective.importance,
                    cap=self.objective.importance_cap,
                )
                for micro_batch in self._micro_batches(groups)
            ]
        for pending in drafts:
            if pending.importance is not None:
                meter.add_importance(pending.importance)
        return drafts

    def _await_rewards(self, groups: Sequence[PendingGroup], meter: StepMeter) -> list[Rewards]:
        with meter.phase("reason"):
            return [pending.result() for _, pending in groups]

    def _accumulate(self, pending: Draft, rewards: Sequence[Rewards], meter: StepMeter) -> None:
        """Add a micro-batch's gradient, summed over its tokens."""
        experience = assemble(pending, rewards)
        settings = self.objective
        tokens, mask = float(experience.mask.sum()), experience.mask
        if settings.kl_coefficient == 0:
            # A caption with advantage 0 then moves nothing: it counts in the mean, but need not be forwarded.
            mask = mask & (experience.advantages != 0).unsqueeze(1)
        self._tokens += tokens
        meter.add(loss_tokens=tokens, forwarded_tokens=float(mask.sum()), skipped=float((~mask.any(dim=1)).sum()))
        if not mask.any():
            return
        with meter.phase("update"):
            policy_logprobs, entropy = self.captioner.logprobs(
                experience.prompts, experience.group_index, experience.token_ids, mask, self.engine.temperature
            )
            out = grpo_loss(
                policy_logprobs,
                experience.old_logprobs,
                experience.ref_logprobs,
                experience.advantages,
                mask,
                experience.importance,
                clip_low=settings.clip_low,
                clip_high=settings.clip_high,
                dual_clip=settings.dual_clip,
                kl_coefficient=settings.kl_coefficient,
            )
            self.manual_backward(out.loss)
        sums = {**out.sums, "entropy": entropy[mask].sum()}
        meter.add(loss=float(out.loss.detach()), **{f"sum/{name}": float(sums[name]) for name in TOKEN_SUMS})

    def _update(self, meter: StepMeter, *, last: bool) -> None:
        """Normalise by the tokens of all ranks, clip, and let the optimizer step.

        Only a step's last update goes through Lightning's wrapper, which counts ``global_step``; with nothing to
        learn the gradients are gone and that call moves no weight, but the count stays right.
        """
        optimizer, schedule = self._optimizer, self.lr_schedulers()
        with meter.phase("update"):
            norm, usable = normalise_gradients(self._trained, self._tokens, self.objective.max_grad_norm)
            self._tokens = 0.0
            if not usable:
                optimizer.zero_grad(set_to_none=True)
                meter.add(skipped_updates=1.0 / self.trainer.world_size)
            (self.optimizers() if last else optimizer).step()  # type: ignore[union-attr]
            optimizer.zero_grad(set_to_none=True)
            if usable:
                self.updates_done += 1
                schedule.step()  # type: ignore[union-attr]
        meter.highest(grad_norm=norm)

    def _finish_step(self, rollouts: Sequence[Rollout], rewards: Sequence[Rewards], meter: StepMeter) -> None:
        self.last_step = list(zip(rollouts, rewards, strict=True))
        meter.add_groups(rollouts, rewards)
        figures = meter.reduced(all_reduce)
        figures["learning_rate"] = self._optimizer.param_groups[0]["lr"]
        figures |= {f"reasoner/{name}": value for name, value in reduce_counts(self.scorer.drain_stats()).items()}
        figures |= {f"rollout/{name}": value for name, value in self.engine.figures().items()}
        self.log_dict({name: value for name, value in figures.items() if name != "reward/mean"})
        self.log("reward/mean", figures["reward/mean"], prog_bar=True)
        if figures["reward/unscored_share"] > self.scorer.max_unscored_share:
            reasons = [reason for group in rewards for reason in group.reasons]
            self._stop = UnscoredError.build(reasons, self.scorer.max_unscored_share)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop a run whose reasoner is gone, leaving a checkpoint from which it can go on."""
        if self._stop is not None:
            folder = self.trainer.log_dir or self.trainer.default_root_dir
            path = f"{folder}/checkpoints/stopped-step={self.trainer.global_step}.ckpt"
            self.trainer.save_checkpoint(path)
            raise UnscoredError(f"{self._stop}: {path}")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self.objective
        rate = settings.learning_rate
        if rate is None:
            rate = FULL_LEARNING_RATE if self.policy_settings.lora is None else LORA_LEARNING_RATE
        optimizer = torch.optim.AdamW(self._trained, lr=rate, betas=settings.betas, weight_decay=settings.weight_decay)
        warmup = settings.warmup_updates
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: min(1.0, (done + 1) / (warmup + 1)))
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        """The one optimizer, without Lightning's counting wrapper."""
        return self.trainer.optimizers[0]

    @property
    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.captioner.parameters() if parameter.requires_grad]


def _split(groups: list[PendingGroup], parts: int) -> list[list[PendingGroup]]:
    """Cut into ``parts`` lists whose lengths differ by at most one; always ``parts`` of them, some maybe empty."""
    size, extra = divmod(len(groups), parts)
    bounds = [index * size + min(index, extra) for index in range(parts + 1)]
    return [groups[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]
