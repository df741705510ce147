"""Everything around the step: building the policy, answering questions for evaluation, checkpoints.

The method itself is in ``module.py``.
"""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from racro_pl.figure_world.models import resolve_model
from racro_pl.images import ImageError
from racro_pl.policy.adapters import TRAINED, find_adapter
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_captioner, load_encoder
from racro_pl.policy.prompts import PromptEncoder, PromptTemplate
from racro_pl.pretrained import sandbox
from racro_pl.reward.reward_function import RewardFunction
from racro_pl.rollout import RolloutEngine, RunInfo
from racro_pl.rollout.engine import EncodedQuestion
from racro_pl.seeds import seed_for
from racro_pl.text.captioner_prompt import captioner_messages
from racro_pl.text.printable import printable
from racro_pl.text.thoughts import without_thoughts
from racro_pl.training.accuracy import Answered, PipelineAccuracy
from racro_pl.training.checkpointing.io import ADAPTER_KEY, adapter_config_json
from racro_pl.training.checkpointing.resuming import ORIGIN_KEY, check_weights, origin_of
from racro_pl.training.distributed import disconnect_at_exit
from racro_pl.training.evaluating import EvaluationScores, check_evaluation, check_monitors, sets_of
from racro_pl.training.startup import check_trainer, keep_gradients_local, probe_gradients, probe_sight
from racro_pl.training.strategy import ShardedStrategy, load_sharded
from racro_pl.types import Question


class _CloseServices(Callback):
    """Lightning tears a module down after success only; requests under way must not outlive a failed run either."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        pl_module.close_services()  # type: ignore[operator]


class CaptionerModule(LightningModule):
    """A captioner and its reasoner under Lightning: set-up, evaluation and checkpoints.

    Args:
        policy: the captioner: weights, quantisation, adapters.
        rollout: the engine that samples captions.
        reward: gives what is sampled its rewards.
        prompt_template: what the captioner is asked for.
    """

    captioner: Captioner
    origin: dict[str, str | None]
    """Digests of the model that the run began with; see :func:`racro_pl.training.checkpointing.resuming.origin_of`."""

    def __init__(
        self,
        policy: PolicySettings,
        rollout: RolloutEngine,
        reward: RewardFunction,
        prompt_template: PromptTemplate = captioner_messages,
    ) -> None:
        super().__init__()
        # A checkpoint holds what was trained, not the base: loading is partial by design, and checked by hand.
        self.strict_loading = False
        policy.path = resolve_model(policy.path)
        if policy.adapter is not None:
            # Now: "the newest version of a run" may be another one tomorrow, and the saved configuration names this.
            policy.adapter = str(find_adapter(policy.adapter))
        self.policy_settings = policy
        self.engine = rollout
        self.scorer = reward
        self.prompt_template = prompt_template
        self.updates_done = 0
        self._encoder: PromptEncoder | None = None
        self.seed: int | None = None
        """The run's, the same on all ranks and after a resumption; set when fitting starts."""
        self.step_seed = 0
        """Of the step under way, on this rank."""

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
            self._encoder = load_encoder(self.policy_settings, self.prompt_template)
        return self._encoder

    def count_prompt_tokens(self, question: Question) -> int:
        """Prompt length, image tokens counted; the data module drops what is too long."""
        return self.encoder.count_tokens(question)

    def encode_readable(self, questions: Sequence[Question]) -> list[EncodedQuestion]:
        """Open and tokenise questions; those whose pixels turn out broken are left out, and named.

        Their headers were fine when the data was built: only decoding shows it.
        """
        encoded = []
        for question in questions:
            try:
                encoded.append((question, self.captioner.encode(question)))
            except ImageError as error:
                self.print(printable(f"question {question.id} left out: {error}"))
        return encoded

    def _readable(self) -> Iterator[EncodedQuestion]:
        """Training questions, one by one: the pixels of the first may be broken after a good header."""
        questions = self.trainer.datamodule.questions["train"]  # type: ignore[attr-defined]
        return (encoded for question in questions for encoded in self.encode_readable([question]))

    def configure_callbacks(self) -> list[Callback]:
        return [_CloseServices()]

    def setup(self, stage: str) -> None:
        disconnect_at_exit()
        check_trainer(self.trainer, self.policy_settings)
        check_evaluation(self.trainer, self.scorer)
        if stage == "fit":
            check_monitors(self.trainer)

    def configure_model(self) -> None:
        """Build the policy on this rank's device. Called again by a second ``fit`` or ``test``: then a no-op."""
        if hasattr(self, "captioner"):
            return
        strategy = self.trainer.strategy
        if isinstance(strategy, ShardedStrategy):
            self.captioner = load_sharded(self.policy_settings, strategy, self.encoder, self._note_origin)
        else:
            self.captioner = load_captioner(self.policy_settings, strategy.root_device, self.encoder)
            self._note_origin(self.captioner)

    def _note_origin(self, captioner: Captioner) -> None:
        self.origin = origin_of(captioner)

    def on_fit_start(self) -> None:
        """Find out now, not half an hour in, that the reasoner is unreachable, or that images or gradients are lost."""
        if self.seed is None:
            self.seed = self.trainer.strategy.broadcast(torch.initial_seed())
        self._open_services()
        self.captioner.train()
        keep_gradients_local(self.trainer)
        probe_sight(self.captioner, self._readable())
        probe_gradients(self.captioner, self._readable())

    def on_train_batch_start(self, batch: list[Question], batch_idx: int) -> None:
        keep_gradients_local(self.trainer)
        # No stream of random numbers goes from step to step, on any device: so none has to be saved and restored,
        # and nothing that draws in between (a validation, a callback) changes what is learnt.
        self.step_seed = seed_for(self.seed or 0, self.trainer.global_step, self.trainer.global_rank)
        torch.manual_seed(self.step_seed)

    def on_validation_start(self) -> None:
        # Within a fit it was checked at the start; an outage later costs scores, not the run.
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self._open_services()

    def on_test_start(self) -> None:
        self._open_services()

    def on_train_epoch_start(self) -> None:
        # Only this class may change the mode: gradient checkpointing depends on it, silently.
        if not self.captioner.training or not self.captioner.model.training:
            raise RuntimeError("the policy is not in train mode at the start of an epoch; some callback changed it")

    def _open_services(self) -> None:
        self.scorer.check()
        # Every rank asks: the folder and the run's name are agreed on by broadcasts.
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
        run_id, key = self.trainer.strategy.broadcast((uuid.uuid4().hex[:12], secrets.token_urlsafe(32)))
        trainer = self.trainer
        self.engine.open(
            RunInfo(
                self.policy_settings, folder, run_id, trainer.global_rank, trainer.world_size, trainer.num_nodes, key
            )
        )

    def close_services(self) -> None:
        """End what was asked of the reasoner and of the rollout engine, whether answered or not."""
        self.scorer.close()
        self.engine.close()

    def teardown(self, stage: str) -> None:
        self.close_services()
        sandbox.close()  # a later use starts it again

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Around asking the engine for captions, on all ranks: an engine in this process needs the weights whole."""
        with ExitStack() as stack:
            if self.engine.placement == "in_process":
                stack.enter_context(self.captioner.gathered())
            yield
        self.captioner.sync_ranks()

    # ------------------------------------------------------------------ evaluation

    def answer(self, questions: Sequence[Question], audited: bool = True) -> list[Answered]:
        """Take questions through the pipeline: greedy caption, reasoner, grade. Unreadable images are left out.

        Args:
            questions: of one batch.
            audited: whether the attached data set may know something about their captions; a benchmark does not.
        """
        encoded = self.encode_readable(questions)
        texts = self.engine.caption_greedily(self.captioner, encoded, self.updates_done)
        captions = [without_thoughts(text) for text in texts]
        pending = [self.scorer.submit(question, [text]) for (question, _), text in zip(encoded, captions, strict=True)]
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return [
            Answered(question, caption, waiting.result(), data.audit_caption(question, caption) if audited else {})
            for (question, _), caption, waiting in zip(encoded, captions, pending, strict=True)
        ]

    def new_accuracy(self, split: str) -> PipelineAccuracy:
        """An empty metric for one split of the attached data."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return PipelineAccuracy(data.categories(split), data.audit_names()).to(self.device)

    def on_validation_epoch_start(self) -> None:
        self._scores = EvaluationScores(
            sets_of(self.trainer), lambda: self.new_accuracy("validation"), self.scorer, self.device
        )
        self._evaluating = ExitStack()
        self._evaluating.callback(self._scores.close)
        self._evaluating.enter_context(self.sampling())

    def validation_step(
        self, questions: list[Question], batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, list[Answered]]:
        """Answers to questions of the validation split; those to a benchmark's go into its score alone."""
        split = self._scores.sets[dataloader_idx] is None
        answered = self.answer(questions, audited=split)
        self._scores.add(dataloader_idx, answered)
        return {"answered": answered if split else []}

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    on_test_epoch_start = on_validation_epoch_start

    def test_step(self, questions: list[Question], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Questions of :class:`racro_pl.data.BenchmarkDataModule`."""
        CaptionerModule.validation_step(self, questions, batch_idx, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, stage: str) -> None:
        self._evaluating.close()
        metrics = self._scores.compute()
        if "accuracy" in metrics:
            self.log(f"{stage}/accuracy", metrics.pop("accuracy"), prog_bar=True)
        self.log_dict({f"{stage}/{name}": value for name, value in metrics.items()})

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
        checkpoint["racro_seed"] = self.seed
        checkpoint[ORIGIN_KEY] = self.origin
        if self.policy_settings.lora is not None:
            checkpoint[ADAPTER_KEY] = adapter_config_json(self.captioner.model.peft_config[TRAINED])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Non-strict loading would hide a checkpoint of another policy: compare by hand."""
        adapter = None if self.policy_settings.lora is None else self.captioner.model.peft_config[TRAINED]
        check_weights(self.policy_settings, adapter, self.state_dict(), self.origin, checkpoint)
        self.updates_done = checkpoint["racro_updates_done"]
        self.seed = checkpoint["racro_seed"]
        given = os.environ.get("PL_GLOBAL_SEED")  # where seed_everything leaves it
        if self.trainer.state.fn == TrainerFn.FITTING and given not in (None, str(self.seed)):
            rank_zero_info(f"resume: the seed is the checkpoint's, {self.seed}; seed_everything {given} is not used")
