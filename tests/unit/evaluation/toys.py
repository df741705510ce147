"""Small benchmarks and made-up outcomes for the tests of scores and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from racro_pl.data.readers.base import ReadResult
from racro_pl.evaluation.benchmarks.base import Benchmark, SplitInfo
from racro_pl.evaluation.outcomes import Judgement, Outcome, Rule
from racro_pl.evaluation.results import Results, System, compare_with_first, summarise
from racro_pl.types import Question

DIRECT = System("base", "direct", None)
PIPELINE = System("base", "caption+tentative", "reasoner")


class Plain(Benchmark):
    """Accuracy over questions."""

    name = "plain"
    title = "Plain"
    splits: ClassVar[Mapping[str, SplitInfo]] = {"test": SplitInfo(4)}
    rules: ClassVar[Mapping[str, Rule]] = {}

    def read(self, path: str | None = None, split: str | None = None, images: bool = True) -> ReadResult:
        raise NotImplementedError


class Worst(Plain):
    """Questions ``1/a``, ``1/b`` are one group, right only as a whole."""

    name = "worst"
    title = "Worst"
    headline = "worst case"

    def group(self, question: Question) -> str:
        return question.id.split("/")[0]

    def group_score(self, outcomes: Sequence[Outcome]) -> float:
        return float(all(outcome.judgement.correct for outcome in outcomes))

    def figures(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        return {"average": sum(outcome.judgement.correct for outcome in outcomes) / len(outcomes)} if outcomes else {}


def question(name: str, category: str = "") -> Question:
    """A question without image."""
    return Question(name, (), f"What is {name}?", "A", "choice", ("one", "two"), category=category)


def outcome(name: str, correct: bool, extracted: str | None = "A", category: str = "") -> Outcome:
    """One scored question."""
    return Outcome(question(name, category), Judgement(extracted, correct))


def results(
    benchmark: Benchmark, outcomes: Mapping[System, Sequence[Outcome]], expected: int = 4, unanswered: int = 0
) -> Results:
    """Results of one benchmark."""
    cells = tuple(summarise(benchmark, s, found, expected, unanswered, "strict") for s, found in outcomes.items())
    return Results("toy", "2026-01-01T00:00:00+00:00", {"seed": 0}, cells, compare_with_first(benchmark, outcomes), ())
