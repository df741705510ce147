"""Further reasoners that read the captions of an evaluation: training asks none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from racro_pl.evaluation.settings import short_name
from racro_pl.reward import Reasoner, RewardFunction, Scorer
from racro_pl.training.metrics.accuracy import Answered, PipelineAccuracy, percent
from racro_pl.types import RacroError

OWN = "its own answers"
"""Stands in place of a reasoner's name for what the captioner answers by itself."""


class Readers:
    """Reasoners by name, each of which answers every question from the same caption.

    Args:
        reasoners: who reads; each with a name of its own.

    Raises:
        RacroError: two have one name, or one has none.
    """

    def __init__(self, reasoners: Sequence[Reasoner]) -> None:
        # Nothing is kept on disk: the captions of a run are read twice and never again.
        self.scorers = {reasoner_name(reasoner): Scorer(reasoner, cache="off") for reasoner in reasoners}
        if len(self.scorers) != len(reasoners) or "" in self.scorers:
            names = [reasoner_name(reasoner) or "(none)" for reasoner in reasoners]
            raise RacroError(
                f"LearningReport.reasoners got the names {', '.join(names)}; expected another model's name for each"
            )

    @property
    def names(self) -> list[str]:
        """In the order of their lines."""
        return list(self.scorers)

    def check(self) -> None:
        """Make sure that all of them answer.

        Raises:
            RacroError: one does not; the message says what to do.
        """
        for scorer in self.scorers.values():
            scorer.check()

    def read(self, answered: Sequence[Answered], new_metric: Callable[[], PipelineAccuracy]) -> list[PipelineAccuracy]:
        """The accuracy of each on this rank's questions and captions, not yet summed over ranks.

        Args:
            answered: questions with their captions; the answers of training's reasoner are not looked at.
            new_metric: makes an empty metric without audits.
        """
        metrics = []
        for scorer in self.scorers.values():
            metric = new_metric()
            waiting = [scorer.submit(item.question, [item.caption]) for item in answered]
            for item, rewards in zip(answered, waiting, strict=True):
                metric.update(Answered(item.question, item.caption, rewards.result(), {}))
            metrics.append(metric)
        return metrics

    def lines(self, trained: str, before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
        """Held-out accuracy before and after, a line for each, and one for the captioner's own answers where they were
        measured; without further ones the first line names none.

        Args:
            trained: name of the reasoner of training.
            before: metrics by name, those of further reasoners as ``<name>: accuracy``.
            after: the same, and ``questions``.
        """
        keys = {"accuracy": f" ({trained})" if self.names else ""}
        keys |= {f"{name}: accuracy": f" ({name})" for name in (*self.names, OWN) if f"{name}: accuracy" in after}
        count = int(after["questions"])
        return [
            f"held-out accuracy{name}: {percent(before[key])} -> {percent(after[key])} ({count} questions)"
            for key, name in keys.items()
        ]

    def close(self) -> None:
        """Let go of servers and workers."""
        for scorer in self.scorers.values():
            scorer.close()


def reasoner_name(reasoner: Reasoner) -> str:
    """As in the tables of ``racro-pl test``: the last part of its model's name; empty for a class without one."""
    return short_name(getattr(reasoner, "path", None) or getattr(reasoner, "model", None) or "")


def trained_with(reward: RewardFunction) -> str:
    """The name of the reasoner that rewards come from; ``training`` where there are several, or one without a name."""
    single = reasoner_name(reward.reasoner) if type(reward) is Scorer else ""
    return single or "training"
