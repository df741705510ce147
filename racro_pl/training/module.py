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
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from racro_pl.experience import Draft, assemble, draft
from racro_pl.figures.models import resolve_model
from racro_pl.images import ImageError
from racro_pl.losses import grpo_loss
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_captioner, load_encoder
from racro_pl.policy.prompts import PromptEncoder
from racro_pl.reward.scorer import PendingRewards, Scorer, UnscoredError
from racro_pl.rollout import RolloutEngine
from racro_pl.training.accuracy import Answered, PipelineAccuracy
from racro_pl.training.checkpoints import ADAPTER_KEY, adapter_config_json
from racro_pl.training.gradients import all_reduce, normalise_gradients
from racro_pl.training.meter import TOKEN_SUMS, StepMeter
from racro_pl.training.settings import FULL_LEARNING_RATE, LORA_LEARNING_RATE, ObjectiveSettings
from racro_pl.training.startup import check_trainer, probe_gradients
from racro_pl.types import Question, RacroError, Rewards, Rollout

PendingGroup = tuple[Rollout, PendingRewards]


class RacroModule(LightningModule):
    """Captioner, reasoner and objective, wired into Lightning.

    Args:
        policy: the captioner: weights, quantisation, adapters.
        rollout: the engine that samples captions.
        reward: the reasoner and how its answers become rewards.
        objective: the GRPO update.
    """

    captioner: Captioner

    def __init__(
        self,
        policy: PolicySettings,
        rollout: RolloutEngine,
        reward: Scorer,
        objective: ObjectiveSettings = ObjectiveSettings(),  # noqa: B008 (never modified)
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        # A checkpoint holds what was trained, not the base: loading is partial by design, and checked by hand.
        self.strict_loading = False
        policy.path = resolve_model(policy.path)
        self.policy_settings = policy
        self.engine = rollout
        self.scorer = reward
        self.objective = objective
        self.updates_done = 0
        self.last_step: list[tuple[Rollout, Rewards]] = []
        """The groups of the step just made, for callbacks."""
        self._encoder: PromptEncoder | None = None
        self._accuracy: PipelineAccuracy | None = None
        self._stop: UnscoredError | None = None
        self._tokens = 0.0
        self._restored_rng: Tensor | None = None

    # ------------------------------------------------------------------ the step

    def training_step(self, questions: list[Question], batch_idx: int) -> None:
        """Sample, score, learn."""
        meter = StepMeter()
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
        encoded = []
        with meter.phase("sample"):
            for question in questions:
                try:
                    encoded.append((question, self.captioner.encode(question)))
                except ImageError as error:
                    # The header was fine when the data was built; only decoding shows broken pixels.
                    self.print(f"question {question.id} left out: {error}")
                    meter.add(dropped=1)
        rollouts = self.engine.sample(self.captioner, encoded, self.updates_done)
        while True:
            with meter.phase("sample"):
                rollout = next(rollouts, None)
            if rollout is None:
                return
            yield rollout, self.scorer.submit(rollout.question, rollout.texts)

    def _micro_batches(self, groups: Sequence[PendingGroup]) -> Iterator[Sequence[PendingGroup]]:
        size = max(1, self.objective.micro_batch_size // self.engine.group_size)
        for start in range(0, len(groups), size):
            yield groups[start : start + size]

    def _draft(self, groups: Sequence[PendingGroup], meter: StepMeter, *, old: bool) -> list[Draft]:
        with meter.phase("logprobs"):
            return [
                draft(
                    self.captioner,
                    [rollout for rollout, _ in micro_batch],
                    old=old,
                    reference=self.objective.kl_coefficient > 0,
                    temperature=self.engine.temperature,
                )
                for micro_batch in self._micro_batches(groups)
            ]

    def _await_rewards(self, groups: Sequence[PendingGroup], meter: StepMeter) -> list[Rewards]:
        with meter.phase("reason"):
            return [pending.result() for _, pending in groups]

    def _accumulate(self, pending: Draft, rewards: Sequence[Rewards], meter: StepMeter) -> None:
        """Add a micro-batch's gradient, summed over its tokens."""
        experience = assemble(pending, rewards)
        settings = self.objective
        if not experience.mask.any():
            return
        with meter.phase("update"):
            policy_logprobs, entropy = self.captioner.logprobs(
                experience.prompts,
                experience.group_index,
                experience.token_ids,
                pending.mask,
                self.engine.temperature,
            )
            out = grpo_loss(
                policy_logprobs,
                experience.old_logprobs,
                experience.ref_logprobs,
                experience.advantages,
                experience.mask,
                clip_low=settings.clip_low,
                clip_high=settings.clip_high,
                dual_clip=settings.dual_clip,
                kl_coefficient=settings.kl_coefficient,
            )
            self.manual_backward(out.loss)
        sums = {**out.sums, "entropy": entropy[experience.mask].sum()}
        meter.add(loss=float(out.loss.detach()), loss_tokens=float(out.tokens))
        meter.add(**{f"sum/{name}": float(sums[name]) for name in TOKEN_SUMS})
        self._tokens += float(out.tokens)

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
        figures |= {f"reasoner/{name}": value for name, value in self.scorer.drain_stats().items()}
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

    # ------------------------------------------------------------------ evaluation

    def answer(self, questions: Sequence[Question]) -> list[Answered]:
        """Take questions through the pipeline: greedy caption, reasoner, grade. Unreadable images are left out."""
        encoded = []
        for question in questions:
            try:
                encoded.append((question, self.captioner.encode(question)))
            except ImageError as error:
                self.print(f"question {question.id} left out: {error}")
        captions = self.engine.describe(self.captioner, encoded)
        pending = [self.scorer.submit(question, [text]) for (question, _), text in zip(encoded, captions, strict=True)]
        audit = self.trainer.datamodule.audit_caption  # type: ignore[attr-defined]
        return [
            Answered(question, caption, waiting.result(), audit(question, caption))
            for (question, _), caption, waiting in zip(encoded, captions, pending, strict=True)
        ]

    def new_accuracy(self, split: str) -> PipelineAccuracy:
        """An empty metric for one split of the attached data."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return PipelineAccuracy(data.categories(split), data.audit_names()).to(self.device)

    def on_validation_epoch_start(self) -> None:
        self._accuracy = self.new_accuracy("validation")

    def on_test_epoch_start(self) -> None:
        self._accuracy = self.new_accuracy("test")

    def validation_step(self, questions: list[Question], batch_idx: int) -> None:
        for answered in self.answer(questions):
            self._accuracy.update(answered)  # type: ignore[union-attr]

    def test_step(self, questions: list[Question], batch_idx: int) -> None:
        self.validation_step(questions, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_accuracy("val")

    def on_test_epoch_end(self) -> None:
        self._log_accuracy("test")

    def _log_accuracy(self, stage: str) -> None:
        figures = self._accuracy.compute()  # type: ignore[union-attr]
        self.log_dict({f"{stage}/{name}": value for name, value in figures.items() if name != "accuracy"})
        self.log(f"{stage}/accuracy", figures["accuracy"], prog_bar=True)
        self._accuracy = None

    # ------------------------------------------------------------------ set-up

    def transfer_batch_to_device(
        self, batch: list[Question], device: torch.device, dataloader_idx: int
    ) -> list[Question]:
        """Questions are references and text: nothing to move."""
        return batch

    @property
    def encoder(self) -> PromptEncoder:
        """The prompt encoder, without the weights."""
        if self._encoder is None:
            self._encoder = load_encoder(self.policy_settings)
        return self._encoder

    def count_prompt_tokens(self, question: Question) -> int:
        """Prompt length, image tokens counted; the data module drops what is too long."""
        return self.encoder.count_tokens(question)

    def setup(self, stage: str) -> None:
        check_trainer(self.trainer, self.policy_settings)

    def configure_model(self) -> None:
        """Build the policy on this rank's device. Called again by a second ``fit`` or ``test``: then a no-op."""
        if not hasattr(self, "captioner"):
            self.captioner = load_captioner(self.policy_settings, self.trainer.strategy.root_device, self.encoder)

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

    def on_fit_start(self) -> None:
        """Find out now, not half an hour in, that the reasoner is unreachable or that gradients do not arrive."""
        self.scorer.check()
        self.captioner.train()
        probe_gradients(self)

    def on_train_start(self) -> None:
        # Last of the set-up: nothing before it may draw from the stream that a resumed run continues.
        if self._restored_rng is not None:
            torch.set_rng_state(self._restored_rng.cpu())
            self._restored_rng = None

    def on_validation_start(self) -> None:
        if not self.trainer.training and not self.trainer.sanity_checking:
            self.scorer.check()

    def on_test_start(self) -> None:
        self.scorer.check()

    def on_train_epoch_start(self) -> None:
        # Nobody but this class may have put it elsewhere: gradient checkpointing keys on it, silently.
        if not self.captioner.training or not self.captioner.model.training:
            raise RuntimeError("the policy is not in train mode at the start of an epoch; some callback changed it")

    def teardown(self, stage: str) -> None:
        self.scorer.close()

    # ------------------------------------------------------------------ checkpoints

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """What was trained, without the frozen base."""
        if not hasattr(self, "captioner"):
            return {}
        return {
            f"captioner.{name}": parameter.detach()
            for name, parameter in self.captioner.named_parameters()
            if parameter.requires_grad
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["racro_updates_done"] = self.updates_done
        checkpoint["racro_rng"] = torch.get_rng_state()
        if self.policy_settings.lora is not None:
            checkpoint[ADAPTER_KEY] = adapter_config_json(self.captioner.model.peft_config["default"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Non-strict loading would hide a checkpoint of another policy: compare the names by hand."""
        self.updates_done = checkpoint["racro_updates_done"]
        self._restored_rng = checkpoint["racro_rng"]
        expected, found = set(self.state_dict()), set(checkpoint["state_dict"])
        if expected != found:
            raise RacroError(
                f"the checkpoint holds {len(found)} trained tensors, this policy has {len(expected)}; "
                f"{len(found ^ expected)} names differ, e.g. {sorted(found ^ expected)[0]}. "
                "Was it written with other policy.lora or policy.path settings?"
            )


def _split(groups: list[PendingGroup], parts: int) -> list[list[PendingGroup]]:
    """Cut into ``parts`` lists whose lengths differ by at most one; always ``parts`` of them, some maybe empty."""
    size, extra = divmod(len(groups), parts)
    bounds = [index * size + min(index, extra) for index in range(parts + 1)]
    return [groups[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]
