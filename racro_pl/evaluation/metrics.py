"""A benchmark's score as a torchmetrics metric: the same over any number of ranks as on one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torchmetrics import Metric

from racro_pl.evaluation.headlines import Headline
from racro_pl.evaluation.outcomes import Judgement, Outcome
from racro_pl.evaluation.statistics import bootstrap_interval, mean
from racro_pl.types import Question


class BenchmarkScore(Metric):
    """Headline and further metrics of one benchmark, from judgements that arrive on any rank in any order.

    Headlines are no means over questions (DynaMath: worst of ten variants; WeMath: kinds of groups), so means per
    rank could not be merged. The state is one slot per question instead, summed over ranks, and the score is worked
    out from all slots at the end.

    A question scored more than once, as when a sampler pads uneven shards by repeating questions, counts once; it
    is right only if every one of its judgements was. A second try would otherwise be a second chance.

    Args:
        headline: says how questions are grouped and scored.
        questions: all questions of the run, in the same order on every rank.
    """

    full_state_update = False

    def __init__(self, headline: Headline, questions: Sequence[Question]) -> None:
        super().__init__()
        self.headline = headline
        self.questions = tuple(questions)
        for name in ("scored", "correct", "extracted"):
            self.add_state(name, torch.zeros(len(self.questions), dtype=torch.int64), dist_reduce_fx="sum")
        self.scored: torch.Tensor
        self.correct: torch.Tensor
        self.extracted: torch.Tensor

    def update(self, index: int, judgement: Judgement) -> None:
        """Count the judgement of ``questions[index]``.

        Raises:
            IndexError: there is no such question.
        """
        if not 0 <= index < len(self.questions):
            raise IndexError(f"question {index}: expected 0 to {len(self.questions) - 1}")
        self.scored[index] += 1
        self.correct[index] += judgement.correct
        self.extracted[index] += judgement.extracted is not None

    def outcomes(self) -> list[Outcome]:
        """The scored questions; of this rank alone, unless called within ``sync_context()``.

        Scores look at right or wrong only, so what was extracted does not travel between ranks: it is "" or None.
        """
        scored, correct, extracted = self.scored.tolist(), self.correct.tolist(), self.extracted.tolist()
        return [
            Outcome(question, Judgement("" if extracted[i] == scored[i] else None, correct[i] == scored[i]))
            for i, question in enumerate(self.questions)
            if scored[i]
        ]

    def compute(self) -> dict[str, float]:
        """The headline, under its name (``accuracy``, ``worst_case``, ...), with ``_low`` and ``_high``, its 95 %
        bootstrap interval over the groups; the benchmark's further metrics; ``unextracted_share``, of the scored
        questions, and ``unanswered_share``, of all questions: those that were not scored; all in 0...1; ``questions``,
        the number scored. What nothing was scored for is NaN.
        """
        outcomes = self.outcomes()
        scores = list(self.headline.group_scores(outcomes).values())
        low, high = bootstrap_interval(scores) if scores else (math.nan, math.nan)
        name = plain_name(self.headline.name)
        unextracted = [float(outcome.judgement.extracted is None) for outcome in outcomes]
        return {
            name: mean(scores) if scores else math.nan,
            f"{name}_low": low,
            f"{name}_high": high,
            **{plain_name(further): value for further, value in self.headline.metrics(outcomes).items()},
            "unextracted_share": mean(unextracted) if outcomes else math.nan,
            "unanswered_share": 1.0 - len(outcomes) / len(self.questions),
            "questions": float(len(outcomes)),
        }


def metric_names(headline: Headline) -> list[str]:
    """The names that :meth:`BenchmarkScore.compute` may give."""
    name = plain_name(headline.name)
    further = [plain_name(each) for each in headline.further]
    return [name, f"{name}_low", f"{name}_high", *further, "unextracted_share", "unanswered_share", "questions"]


def plain_name(name: str) -> str:
    """A metric's name as loggers and flags take it: ``worst_case`` of "worst case"."""
    return name.replace(" ", "_")
