"""What a validation or test under Lightning measures: the validation split's accuracy, and the scores of benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from lightning.pytorch import Trainer

from racro_pl.data.benchmarks.loading import LoadedBenchmark
from racro_pl.evaluation.headlines import HEADLINES
from racro_pl.evaluation.metrics import BenchmarkScore, metric_names
from racro_pl.evaluation.outcomes import Tools
from racro_pl.evaluation.verdicts import score_responses
from racro_pl.reward import Grader, RewardFunction
from racro_pl.training.metrics.accuracy import Answered, PipelineAccuracy
from racro_pl.types import RacroError

RULE = "strict"
"""Needs no judge, and every benchmark has it."""


class EvaluationScores:
    """Metrics of one validation or test, with reduction over ranks.

    Args:
        sets: what each loader holds: None for the validation split, else a benchmark; the same on every rank.
        accuracy: makes the metric of the validation split.
        reward: gave the captions their rewards; knows the answers that these came from.
        device: of the sums over ranks.
    """

    def __init__(
        self,
        sets: Sequence[LoadedBenchmark | None],
        accuracy: Callable[[], PipelineAccuracy],
        reward: RewardFunction,
        device: torch.device,
    ) -> None:
        self.sets = sets
        self.reward = reward
        self._accuracy = accuracy() if None in sets else None
        benchmarks = [loaded for loaded in sets if loaded is not None]
        self._scores = {
            loaded.name: BenchmarkScore(HEADLINES[loaded.name], loaded.questions).to(device) for loaded in benchmarks
        }
        self._places = {
            (loaded.name, question.id): place
            for loaded in benchmarks
            for place, question in enumerate(loaded.questions)
        }
        self._tools = Tools(Grader())

    def add(self, dataloader_idx: int, answered: Sequence[Answered]) -> None:
        """Count a batch of one loader."""
        loaded = self.sets[dataloader_idx]
        if loaded is not None:
            for item in answered:
                self._judge(loaded.name, item)
        elif self._accuracy is not None:
            for item in answered:
                self._accuracy.update(item)

    def _judge(self, benchmark: str, item: Answered) -> None:
        responses = self.reward.responses([item.caption], item.rewards)[0]
        rule = HEADLINES[benchmark].rule(RULE)
        # Of several answers the majority counts. Without any the question is unanswered, which is not wrong.
        verdict = score_responses(rule, item.question, responses, self._tools)
        if verdict is not None:
            self._scores[benchmark].update(self._places[benchmark, item.question.id], verdict.judgement)

    def compute(self) -> dict[str, float]:
        """The validation split's metrics by name, and every benchmark's under ``<benchmark>/<metric>``."""
        metrics = {} if self._accuracy is None else self._accuracy.compute()
        for name, score in self._scores.items():
            metrics |= {f"{name}/{key}": value for key, value in score.compute().items()}
        return metrics

    def close(self) -> None:
        """End the grader's process."""
        self._tools.grader.close()


def sets_of(trainer: Trainer) -> list[LoadedBenchmark | None]:
    """What each validation or test loader of the attached data holds; a foreign data module has a split alone."""
    return getattr(trainer.datamodule, "validation_sets", [None])  # type: ignore[attr-defined]


def check_evaluation(trainer: Trainer, reward: RewardFunction) -> None:
    """Refuse benchmarks that could not be scored, and a best checkpoint by a metric that is never there.

    Raises:
        RacroError: with what to set instead.
    """
    benchmarks = [loaded.name for loaded in sets_of(trainer) if loaded is not None]
    if benchmarks and not reward.answers_questions:
        raise RacroError(
            f"{', '.join(benchmarks)}: a {type(reward).__name__} gives no answers that a benchmark could score; leave "
            "the benchmarks out, or use a Scorer with a reasoner"
        )


def check_monitors(trainer: Trainer) -> None:
    """Refuse a callback that waits for a metric of the validation that this run does not have.

    Raises:
        RacroError: names the metrics that there are.
    """
    sets = sets_of(trainer)
    if not sets or not hasattr(trainer.datamodule, "validation_sets"):  # type: ignore[attr-defined]
        return
    known = [f"val/{name}" for loaded in sets for name in _names(trainer, loaded)]
    if None in sets and len(getattr(trainer.lightning_module, "roles", ())) > 1:
        known.append("val/own_accuracy")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor.startswith("val/") and monitor not in known:
            raise RacroError(
                f"{type(callback).__name__} monitors {monitor!r}, which this run's validation does not give; set "
                f"checkpoint.monitor (or the callback's) to one of {', '.join(known)}"
            )


def _names(trainer: Trainer, loaded: LoadedBenchmark | None) -> list[str]:
    if loaded is not None:
        return [f"{loaded.name}/{name}" for name in metric_names(HEADLINES[loaded.name])]
    data = trainer.datamodule  # type: ignore[attr-defined]
    return PipelineAccuracy(data.categories("validation"), data.audit_names()).names
