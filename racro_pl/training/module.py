"""The RACRO training step on Lightning.

One step, for B questions with G captions each: sample captions, let the frozen reasoner answer from each caption
alone, reward a caption with 1 when that answer is right, and move the captioner by GRPO. This module alone knows
the order; every station it calls can be used and tested without a Trainer. Start reading at ``training_step``.

Manual optimization: a step makes one or more optimizer updates. Lightning counts *steps*: ``global_step``,
``max_steps``, checkpoint cadence and the loggers' axis all advance by one per step, however many updates it makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from torch import Tensor

from racro_pl.data.sampling import extra_indices
from racro_pl.experience import LogprobBatch, reward_free_logprobs, with_advantages
from racro_pl.losses import divisor, grpo_loss, truncated_importance
from racro_pl.policy.config import PolicySettings
from racro_pl.reward.reward_function import RewardFunction
from racro_pl.reward.scorer import Scorer
from racro_pl.reward.unscored import UnscoredError
from racro_pl.rollout import RolloutEngine, RolloutError
from racro_pl.training.distributed import all_reduce, join_ranks, reduce_counts
from racro_pl.training.encoding import encode_readable, in_order, telling
from racro_pl.training.gradients import GradientSum, normalise_gradients, take_gradients
from racro_pl.training.metrics.step import TOKEN_SUMS, StepMetrics
from racro_pl.training.rollouts import (
    MicroBatch,
    StepGroups,
    SubmittedGroup,
    micro_batches,
    other_questions,
    replace_flat,
)
from racro_pl.training.settings import ObjectiveSettings
from racro_pl.training.validation import LOST_ON_ANOTHER_RANK, AnsweringModule
from racro_pl.types import Experience, Question, Rewards, Role, Rollout


class RacroModule(AnsweringModule):
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
        reward: Scorer | RewardFunction | None = None,
        objective: ObjectiveSettings = ObjectiveSettings(),  # noqa: B008 (never modified)
    ) -> None:
        super().__init__(policy, rollout, reward, objective)
        self.automatic_optimization = False
        self.last_step: list[tuple[Rollout, Rewards]] = []
        """The groups of the step just made, for callbacks."""
        self._divisor = 0.0
        """What the gradients summed since the last update are to be divided by: this rank's part of it."""
        self._other_losses: list[GradientSum] = []
        """Gradients of the roles that this update has learnt before."""

    # ------------------------------------------------------------------ the step

    def training_step(self, questions: list[Question], batch_idx: int) -> None:
        """One step of RACRO: GRPO on captions that a frozen reasoner has to answer from.

        For B questions: sample G captions each; the reasoner answers every question from every caption; reward 1 for a
        right answer; advantages within each group; a clipped policy gradient with a KL term to the model that the run
        began with. Objectives that ask for answers have groups of those, in place of captions or beside them.
        """
        metrics = StepMetrics(self.roles)
        learnt: list[tuple[Rollout, Rewards]] = []
        with self.captioner.cache_image_features():
            # Sampling and submission are one pass: a group is on its way to the reasoner as soon as it is sampled.
            groups = self._sample_and_submit(questions, metrics)
            # What needs no reward is computed while the reasoner is answering.
            batches = [(batch, self._logprobs(batch, metrics)) for batch in self._micro_batches(groups)]
            for update in range(self.objective.updates_per_rollout):
                for role in self._learning_order(metrics):
                    for batch, logprobs in [it for it in batches if (it[0].update, it[0].role) == (update, role)]:
                        rewards = self._wait_for_rewards(batch, metrics)
                        experience = with_advantages(logprobs, rewards, self.objective.variant.divide_by_std)
                        loss = self._loss(experience, logprobs, role, metrics)
                        self._backward(loss, metrics)
                        learnt += zip([rollout for rollout, _ in batch.groups], rewards, strict=True)
                self._update(metrics, last=update == self.objective.updates_per_rollout - 1)
        metrics.add(unsampled=groups.count - len(learnt))
        learnt.sort(key=lambda group: self.roles.index(group[0].role))  # stable: the order of the questions stays
        self._log_step(learnt + [(rollout, rewards.result()) for rollout, rewards in groups.excluded], metrics)

    def _sample_and_submit(self, questions: Sequence[Question], metrics: StepMetrics) -> StepGroups:
        """This step's groups; with ``sample_ahead`` those of the step before, while this step's are sampled."""
        ahead = self.objective.sample_ahead
        if ahead:
            self._rollouts.drain(self._all_ranks)
        with self.sampling():
            groups = self._submit(questions, metrics, ahead)
            if self.objective.refill_rounds:
                groups = self._refill(questions, groups, metrics)
        return self._rollouts.exchange(groups) if ahead else groups

    def _submit(self, questions: Sequence[Question], metrics: StepMetrics, ahead: bool = False) -> StepGroups:
        with metrics.phase("sample"):
            encoded = encode_readable(self.captioner, questions, self.roles, telling(self))
        metrics.add(dropped=len(questions) - len(encoded))
        asked = in_order(encoded, self.objective.updates_per_rollout)
        return self._rollouts.submit(
            len(asked),
            lambda: self.engine.sample(self.captioner, asked, self.updates_done),
            self.step_seed,
            metrics,
            ahead,
        )

    def _micro_batches(self, groups: StepGroups) -> Iterator[MicroBatch]:
        size = max(1, self.objective.micro_batch_size // self.engine.group_size)
        updates = self.objective.updates_per_rollout
        return micro_batches(groups.groups, groups.count, updates, size, len(self.roles))

    def _logprobs(self, batch: MicroBatch, metrics: StepMetrics) -> LogprobBatch:
        """Reference and old log-probs, and importance weights where other weights or another engine sampled."""
        with metrics.phase("logprobs"):
            logprobs = reward_free_logprobs(
                self.captioner,
                [rollout for rollout, _ in batch.groups],
                # Before the first update the policy's own log-probs are the old ones.
                old=batch.update > 0,
                reference=self.objective.variant_of(batch.role).kl_coefficient > 0,
                temperature=self.engine.temperature,
                weigh=self.objective.sample_ahead or self.engine.placement != "in_process",
                level=self.objective.importance,
                cap=self.objective.importance_cap,
            )
        if logprobs.importance is not None:
            metrics.of(batch.role).add_importance(logprobs.importance)
        return logprobs

    def _learning_order(self, metrics: StepMetrics) -> Iterator[Role]:
        """Answers first, while the reasoner reads captions. Their summed gradient is kept beside the captions'."""
        for role in reversed(self.roles):
            yield role
            if role != self.roles[0]:
                with metrics.phase("update"):
                    # A sharded pass adds to the gradients of all ranks: none may still be in this role.
                    self.captioner.sync_ranks()
                    self._other_losses.append(
                        take_gradients(self._trained, self._divisor, self.objective.answer_weight)
                    )
                    self._divisor = 0.0

    def _wait_for_rewards(self, batch: MicroBatch, metrics: StepMetrics) -> list[Rewards]:
        with metrics.phase("reason"):
            return [rewards.result() for _, rewards in batch.groups]

    def _loss(self, experience: Experience, logprobs: LogprobBatch, role: Role, step: StepMetrics) -> Tensor | None:
        """A micro-batch's loss, summed over its tokens or captions; None where there is nothing to learn."""
        variant, mask, metrics = self.objective.variant_of(role), experience.mask, step.of(role)
        share = divisor(variant, mask, self.engine.max_new_tokens)
        if variant.kl_coefficient == 0:
            # A caption with advantage 0 then moves nothing: it counts in the mean, but need not be forwarded.
            mask = mask & (experience.advantages != 0).unsqueeze(1)
        self._divisor += share
        metrics.add(divisor=share, forwarded_tokens=float(mask.sum()), skipped=float((~mask.any(dim=1)).sum()))
        if not mask.any():
            return None
        with step.phase("update"):
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
        self._measure_gap(logprobs, policy_logprobs.detach(), mask, metrics)
        sums = {**out.sums, "entropy": entropy[mask].sum()}
        metrics.add(loss=float(out.loss.detach()), **{f"sum/{name}": float(sums[name]) for name in TOKEN_SUMS})
        return out.loss

    def _backward(self, loss: Tensor | None, metrics: StepMetrics) -> None:
        """Add the micro-batch's gradient to the update's."""
        if loss is not None:
            with metrics.phase("update"):
                self.manual_backward(loss)

    def _update(self, metrics: StepMetrics, *, last: bool) -> None:
        """Normalise the gradients over all ranks, clip them, and let the optimizer step.

        Only a step's last update goes through Lightning's wrapper, which counts ``global_step``; with nothing to
        learn the gradients are gone and that call moves no weight, but the count stays right.
        """
        optimizer = self._optimizer
        with metrics.phase("update"):
            self.captioner.sync_ranks()
            norm, usable = normalise_gradients(
                self._trained, self._divisor, self.objective.max_grad_norm, self._other_losses
            )
            self._divisor, self._other_losses = 0.0, []
            if not usable:
                optimizer.zero_grad(set_to_none=True)
                metrics.add(skipped_updates=1.0 / self.trainer.world_size)
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate
            (self.optimizers() if last else optimizer).step()  # type: ignore[union-attr]
            optimizer.zero_grad(set_to_none=True)
            if usable:
                self.updates_done += 1
        metrics.highest(grad_norm=norm)

    def _log_step(self, groups: list[tuple[Rollout, Rewards]], metrics: StepMetrics) -> None:
        self.last_step = groups
        metrics.add_groups(groups)
        values = metrics.reduced(all_reduce)
        values["learning_rate"] = self._optimizer.param_groups[0]["lr"]
        stats = self._rollouts.reward_stats() | {"spent": self._guard.own}
        values |= {f"reasoner/{name}": value for name, value in reduce_counts(stats).items()}
        values |= {f"rollout/{name}": value for name, value in self.engine.metrics().items()}
        values |= {f"images/{name}": value for name, value in self.captioner.drain_metrics().items()}
        self._stop = self._guard.after_step(self.trainer.global_step, values)
        self.log_dict({name: value for name, value in values.items() if name != "reward/mean"})
        self.log("reward/mean", values["reward/mean"], prog_bar=True)
        for role, reward in self.rewards.items():
            prefix = "" if role == self.roles[0] else f"{role}s/"
            if values[f"{prefix}reward/unscored_share"] > reward.max_unscored_share:
                # The share is that of all ranks, so all of them come here; each then tells the whole story.
                own = [rewards.reasons for rollout, rewards in groups if rollout.role == role]
                reasons = join_ranks([reason for each in own for reason in each])
                self._stop = UnscoredError.build(reasons, reward.max_unscored_share)
        if values["questions/unsampled"]:
            self._stop = self._rollouts.lost or RolloutError(LOST_ON_ANOTHER_RANK)

    def first_role(self, groups: list[tuple[Rollout, Rewards]]) -> list[tuple[Rollout, Rewards]]:
        """Those of the objective's first role: captions, or the answers of an objective without captions."""
        return [group for group in groups if group[0].role == self.roles[0]]

    def _measure_gap(self, logprobs: LogprobBatch, policy_logprobs: Tensor, mask: Tensor, metrics: StepMetrics) -> None:
        """How far the sampler in this process is from the policy. They are the same weights, so no weight is taken."""
        if logprobs.importance is None and logprobs.sampler_logprobs is not None:
            old = policy_logprobs if logprobs.old_logprobs is None else logprobs.old_logprobs
            level, cap = self.objective.importance, self.objective.importance_cap
            metrics.add_importance(truncated_importance(old, logprobs.sampler_logprobs, mask, level=level, cap=cap))

    def _refill(self, questions: Sequence[Question], groups: StepGroups, metrics: StepMetrics) -> StepGroups:
        """Dynamic sampling, see :func:`racro_pl.training.rollouts.replace_flat`."""
        data, trainer = self.trainer.datamodule, self.trainer  # type: ignore[attr-defined]
        own = list(groups.groups)
        order = extra_indices(len(data.questions["train"]), data.seed, trainer.global_step, trainer.global_rank)
        further = other_questions(data.questions["train"], questions, order)

        def draw(count: int) -> Iterator[SubmittedGroup]:
            drawn = list(islice(further, count))
            metrics.add(refilled=len(drawn))
            return self._submit(drawn, metrics).groups

        def result(group: SubmittedGroup) -> Rewards:
            with metrics.phase("reason"):
                return group[1].result()

        kept, excluded = replace_flat(own, self.objective.refill_rounds, result, draw)
        metrics.add(replaced=sum(group is not before for group, before in zip(kept, own, strict=True)))
        return StepGroups(groups.count, iter(kept), excluded)
