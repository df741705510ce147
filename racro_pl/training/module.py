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
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from racro_pl.experience import Draft, assemble, draft
from racro_pl.losses import divisor, grpo_loss, truncated_importance
from racro_pl.policy.config import PolicySettings
from racro_pl.reward.rewarder import Rewarder
from racro_pl.reward.scorer import Scorer
from racro_pl.reward.unscored import UnscoredError
from racro_pl.rollout import RolloutEngine, RolloutError
from racro_pl.training import objectives
from racro_pl.training.accuracy import Answered
from racro_pl.training.base import CaptionerModule
from racro_pl.training.checkpointing.stopping import stop_with_checkpoint
from racro_pl.training.gradients import all_reduce, join_ranks, normalise_gradients, reduce_counts
from racro_pl.training.metrics import TOKEN_SUMS, StepMeter
from racro_pl.training.reasoner_guard import ReasonerGuard
from racro_pl.training.resuming import SETTINGS_KEY, check_run, configured_hyperparameters, run_settings
from racro_pl.training.settings import FULL_LEARNING_RATE, LORA_LEARNING_RATE, ObjectiveSettings
from racro_pl.training.stream import MicroBatch, micro_batches
from racro_pl.training.supply import CaptionSupply, Supply
from racro_pl.training.unused import unused_settings
from racro_pl.types import Question, RacroError, Rewards, Rollout

LOST_ELSEWHERE = "another rank has lost its rollout server; its output says more"


class RacroModule(CaptionerModule):
    """Captioner, reasoner and objective, wired into Lightning.

    Args:
        policy: the captioner: weights, quantisation, adapters.
        rollout: the engine that samples captions.
        reward: the reasoner and how its answers become rewards; null only for ``objective.name: qa``, which asks none.
        objective: what is learnt, and the GRPO update.
    """

    def __init__(
        self,
        policy: PolicySettings,
        rollout: RolloutEngine,
        reward: Scorer | Rewarder | None = None,
        objective: ObjectiveSettings = ObjectiveSettings(),  # noqa: B008 (never modified)
    ) -> None:
        rewards = objectives.rewarder(objective, reward, lambda: self.captioner)
        super().__init__(policy, rollout, rewards, objectives.wording(objective))
        self.automatic_optimization = False
        self.objective = objective
        self.reward = reward
        self.last_step: list[tuple[Rollout, Rewards]] = []
        """The groups of the step just made, for callbacks."""
        self._divisor = 0.0
        """What the gradients summed since the last update are to be divided by: this rank's part of it."""
        self._supply = CaptionSupply(self)
        self._guard = ReasonerGuard(lambda: self.scorer)
        self._stop: RacroError | None = None
        """Why the run ends behind this step."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        objectives.check_strategy(self.objective, self.trainer)
        if stage != "fit":
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        questions = data.questions_per_step // self.trainer.world_size
        for line in unused_settings(self, questions, getattr(data, "curriculum", None)):
            rank_zero_info(line)
        if self.objective.sample_ahead:
            rank_zero_info(
                "sample_ahead: the first step only samples, here and after a resume; a resumed run goes on without "
                "the captions that were under way, so not bit for bit as the uninterrupted one"
            )

    def on_fit_start(self) -> None:
        self._guard.begin()
        super().on_fit_start()

    def on_validation_start(self) -> None:
        super().on_validation_start()
        self._supply.settle()  # it would push other weights

    def on_train_batch_start(self, batch: list[Question], batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        self._supply.reasoner_figures()  # what was asked between two steps is of neither

    def close_services(self) -> None:
        self._supply.close()
        super().close_services()

    def training_step(self, questions: list[Question], batch_idx: int) -> None:
        """Sample, score, learn; an image is looked at once for all of it."""
        with self.captioner.seeing_once():
            self._step(questions, StepMeter())

    def _step(self, questions: list[Question], meter: StepMeter) -> None:
        with self.sampling():
            supply = self._supply.take(questions, meter)
        # Log-probs need no reward: they are taken while the reasoner is still answering.
        drafts = [(batch, self._draft(batch, meter)) for batch in self._micro_batches(supply)]
        scored: list[tuple[Rollout, Rewards]] = []
        for part in range(self.objective.updates_per_rollout):
            for batch, pending in [item for item in drafts if item[0].part == part]:
                rewards = self._await_rewards(batch, meter)
                self._accumulate(pending, rewards, meter)
                scored += [(rollout, reward) for (rollout, _), reward in zip(batch.groups, rewards, strict=True)]
            self._update(meter, last=part == self.objective.updates_per_rollout - 1)
        meter.add(unsampled=supply.count - len(scored))
        self._finish_step(scored + [(rollout, pending.result()) for rollout, pending in supply.aside], meter)

    def _micro_batches(self, supply: Supply) -> Iterator[MicroBatch]:
        size = max(1, self.objective.micro_batch_size // self.engine.group_size)
        return micro_batches(supply.groups, supply.count, self.objective.updates_per_rollout, size)

    def _draft(self, batch: MicroBatch, meter: StepMeter) -> Draft:
        with meter.phase("logprobs"):
            pending = draft(
                self.captioner,
                [rollout for rollout, _ in batch.groups],
                # Only the first part is learnt from before any update: only there are the policy's own log-probs
                # the old ones.
                old=batch.part > 0,
                reference=self.objective.variant.kl_coefficient > 0,
                temperature=self.engine.temperature,
                weigh=self.objective.sample_ahead or not self.engine.in_process,
                level=self.objective.importance,
                cap=self.objective.importance_cap,
            )
        if pending.importance is not None:
            meter.add_importance(pending.importance)
        return pending

    def _await_rewards(self, batch: MicroBatch, meter: StepMeter) -> list[Rewards]:
        with meter.phase("reason"):
            return [pending.result() for _, pending in batch.groups]

    def _accumulate(self, pending: Draft, rewards: Sequence[Rewards], meter: StepMeter) -> None:
        """Add a micro-batch's gradient, summed over its tokens or captions."""
        variant = self.objective.variant
        experience = assemble(pending, rewards, variant.divide_by_std)
        mask = experience.mask
        share = divisor(variant, mask, self.engine.max_new_tokens)
        if variant.kl_coefficient == 0:
            # A caption with advantage 0 then moves nothing: it counts in the mean, but need not be forwarded.
            mask = mask & (experience.advantages != 0).unsqueeze(1)
        self._divisor += share
        meter.add(divisor=share, forwarded_tokens=float(mask.sum()), skipped=float((~mask.any(dim=1)).sum()))
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
                variant,
            )
            self.manual_backward(out.loss)
        self._compare(pending, policy_logprobs.detach(), mask, meter)
        sums = {**out.sums, "entropy": entropy[mask].sum()}
        meter.add(loss=float(out.loss.detach()), **{f"sum/{name}": float(sums[name]) for name in TOKEN_SUMS})

    def _compare(self, pending: Draft, policy_logprobs: Tensor, mask: Tensor, meter: StepMeter) -> None:
        """Measure how far the sampler in this process is from the policy: of one mind, they need no weights."""
        if pending.importance is None and pending.sampler_logprobs is not None:
            old = policy_logprobs if pending.old_logprobs is None else pending.old_logprobs
            level, cap = self.objective.importance, self.objective.importance_cap
            meter.add_importance(truncated_importance(old, pending.sampler_logprobs, mask, level=level, cap=cap))

    def _update(self, meter: StepMeter, *, last: bool) -> None:
        """Normalise over all ranks, clip, and let the optimizer step.

        Only a step's last update goes through Lightning's wrapper, which counts ``global_step``; with nothing to
        learn the gradients are gone and that call moves no weight, but the count stays right.
        """
        optimizer = self._optimizer
        with meter.phase("update"):
            self.captioner.catch_up()
            norm, usable = normalise_gradients(self._trained, self._divisor, self.objective.max_grad_norm)
            self._divisor = 0.0
            if not usable:
                optimizer.zero_grad(set_to_none=True)
                meter.add(skipped_updates=1.0 / self.trainer.world_size)
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate
            (self.optimizers() if last else optimizer).step()  # type: ignore[union-attr]
            optimizer.zero_grad(set_to_none=True)
            if usable:
                self.updates_done += 1
        meter.highest(grad_norm=norm)

    def _finish_step(self, groups: list[tuple[Rollout, Rewards]], meter: StepMeter) -> None:
        self.last_step = groups
        meter.add_groups(groups)
        figures = meter.reduced(all_reduce)
        figures["learning_rate"] = self._optimizer.param_groups[0]["lr"]
        stats = self._supply.reasoner_figures() | {"spent": self._guard.own}
        figures |= {f"reasoner/{name}": value for name, value in reduce_counts(stats).items()}
        figures |= {f"rollout/{name}": value for name, value in self.engine.figures().items()}
        figures |= {f"images/{name}": value for name, value in self.captioner.drain_figures().items()}
        self._stop = self._guard.after_step(self.trainer.global_step, figures)
        self.log_dict({name: value for name, value in figures.items() if name != "reward/mean"})
        self.log("reward/mean", figures["reward/mean"], prog_bar=True)
        if figures["reward/unscored_share"] > self.scorer.max_unscored_share:
            # The share is that of all ranks, so all of them come here; each then tells the whole story.
            reasons = join_ranks([reason for _, rewards in groups for reason in rewards.reasons])
            self._stop = UnscoredError.build(reasons, self.scorer.max_unscored_share)
        if figures["questions/unsampled"]:
            self._stop = self._supply.lost or RolloutError(LOST_ELSEWHERE)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop a run whose reasoner or rollout server is gone, leaving a checkpoint from which it can go on."""
        if self._stop is not None:
            stop_with_checkpoint(self.trainer, self._stop)

    def validation_step(self, questions: list[Question], batch_idx: int) -> dict[str, list[Answered]]:
        try:
            return super().validation_step(questions, batch_idx)
        except RolloutError as error:
            self._supply.lost = error
            return {"answered": []}

    def on_validation_epoch_end(self) -> None:
        """An accuracy of the questions that were captioned in time would be none: stop instead, on all ranks."""
        if all_reduce(torch.tensor(float(self._supply.lost is not None)), "max"):
            reason = self._supply.lost or RolloutError(LOST_ELSEWHERE)
            if self.trainer.state.fn != TrainerFn.FITTING:
                raise reason
            stop_with_checkpoint(self.trainer, reason)
        self._guard.settle()
        super().on_validation_epoch_end()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        settings = self.objective
        optimizer = torch.optim.AdamW(
            self._trained, lr=self.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
        )
        optimizer.register_load_state_dict_pre_hook(configured_hyperparameters)
        return optimizer

    @property
    def peak_rate(self) -> float:
        """The learning rate after the warm-up."""
        default = FULL_LEARNING_RATE if self.policy_settings.lora is None else LORA_LEARNING_RATE
        return default if self.objective.learning_rate is None else self.objective.learning_rate

    @property
    def learning_rate(self) -> float:
        """Of the next update. It follows from the settings and the number of updates alone: a schedule object would
        bring an old one back from a checkpoint."""
        return self.peak_rate * min(1.0, (self.updates_done + 1) / (self.objective.warmup_updates + 1))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[SETTINGS_KEY] = run_settings(self)
        checkpoint["racro_spent"] = self._guard.spent

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_run(self, checkpoint)
        self._guard.resume(checkpoint.get("racro_spent", 0.0))

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        """The one optimizer, without Lightning's counting wrapper."""
        return self.trainer.optimizers[0]

    @property
    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.captioner.parameters() if parameter.requires_grad]
