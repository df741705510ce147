"""Questions through the whole pipeline during a run: caption, reasoner, grade, and the scores of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from lightning.pytorch.trainer.states import TrainerFn

from racro_pl.rollout import RolloutError
from racro_pl.text.thoughts import without_thoughts
from racro_pl.training.base import CaptionerModule
from racro_pl.training.checkpointing.run_folder import stop_with_checkpoint
from racro_pl.training.distributed import all_reduce
from racro_pl.training.metrics.accuracy import Answered, PipelineAccuracy
from racro_pl.training.metrics.scores import EvaluationScores, sets_of
from racro_pl.types import Question, Role

LOST_ON_ANOTHER_RANK = "another rank has lost its rollout server; its output says more"


class AnsweringModule(CaptionerModule):
    """A captioner module that answers questions, and so validates and tests."""

    def answer(self, questions: Sequence[Question], audited: bool = True, role: Role | None = None) -> list[Answered]:
        """Take questions through the pipeline: greedy caption, reasoner, grade. Unreadable images are left out.

        Args:
            questions: of one batch.
            audited: whether the attached data set may know something about their captions; a benchmark does not.
            role: what to write and grade in place of the objective's first; own answers are not audited.
        """
        role = role or self.roles[0]
        encoded = self.encode_readable(questions, role)
        texts = self.engine.caption_greedily(self.captioner, encoded, self.updates_done)
        captions = [without_thoughts(text) for text in texts]
        reward = self.rewards[role]
        pending = [reward.submit(question, [text]) for (question, _), text in zip(encoded, captions, strict=True)]
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return [
            Answered(question, caption, waiting.result(), data.audit_caption(question, caption) if audited else {})
            for (question, _), caption, waiting in zip(encoded, captions, pending, strict=True)
        ]

    def new_accuracy(self, split: str, audited: bool = True) -> PipelineAccuracy:
        """An empty metric for one split of the attached data, with its audit of captions or without."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return PipelineAccuracy(data.categories(split), data.audit_names() if audited else ()).to(self.device)

    def on_validation_start(self) -> None:
        # Within a fit it was checked at the start; an outage later costs scores, not the run.
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self._open_services()
        self._rollouts.drain(self._all_ranks)  # a validation would push other weights

    def on_test_start(self) -> None:
        self._open_services()

    def _all_ranks(self) -> None:
        self.trainer.strategy.barrier("captions of all ranks")

    def on_validation_epoch_start(self) -> None:
        self._scores = EvaluationScores(
            sets_of(self.trainer), lambda: self.new_accuracy("validation"), self.scorer, self.device
        )
        # Objectives that learn captions and answers report both; the first has its own line.
        self._alone = self.new_accuracy("validation", audited=False) if self.roles[1:] else None
        self._evaluating = ExitStack()
        self._evaluating.callback(self._scores.close)
        self._evaluating.enter_context(self.sampling())

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(
        self, questions: list[Question], batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, list[Answered]]:
        """Answers to questions of the validation split; those to a benchmark's go into its score alone.

        None where the rollout server is lost: see :meth:`on_validation_epoch_end`.
        """
        try:
            return {"answered": self._answer_batch(questions, dataloader_idx)}
        except RolloutError as error:
            self._rollouts.lost = error
            return {"answered": []}

    def test_step(self, questions: list[Question], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Questions of :class:`racro_pl.data.BenchmarkDataModule`."""
        self._answer_batch(questions, dataloader_idx)

    def _answer_batch(self, questions: Sequence[Question], dataloader_idx: int) -> list[Answered]:
        split = self._scores.sets[dataloader_idx] is None
        answered = self.answer(questions, audited=split)
        self._scores.add(dataloader_idx, answered)
        if split and self._alone is not None:
            for item in self.answer(questions, audited=False, role="answer"):
                self._alone.update(item)
        return answered if split else []

    def on_validation_epoch_end(self) -> None:
        """An accuracy of the questions that were captioned in time would be none: stop instead, on all ranks."""
        if all_reduce(torch.tensor(float(self._rollouts.lost is not None)), "max"):
            reason = self._rollouts.lost or RolloutError(LOST_ON_ANOTHER_RANK)
            if self.trainer.state.fn != TrainerFn.FITTING:
                raise reason
            stop_with_checkpoint(self.trainer, reason)
        self._guard.settle()
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, stage: str) -> None:
        self._evaluating.close()
        metrics = self._scores.compute()
        if "accuracy" in metrics:
            self.log(f"{stage}/accuracy", metrics.pop("accuracy"), prog_bar=True)
        if self._alone is not None:
            metrics["own_accuracy"] = self._alone.compute()["accuracy"]
        self.log_dict({f"{stage}/{name}": value for name, value in metrics.items()})
