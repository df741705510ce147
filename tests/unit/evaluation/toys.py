"""Small benchmarks and made-up outcomes for the tests of scores and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from racro_pl.data.benchmarks.base import Benchmark, Found, SplitInfo
from racro_pl.evaluation.headlines import Headline, WorstCase
from racro_pl.evaluation.outcomes import Judgement, Outcome
from racro_pl.evaluation.results import Results, System, compare_systems, summarise
from racro_pl.types import Question

DIRECT = System("base", "direct", None)
PIPELINE = System("base", "caption+tentative", "reasoner")


class Plain(Benchmark):
    """Questions one by one."""

    name = "plain"
    title = "Plain"
    splits: ClassVar[Mapping[str, SplitInfo]] = {"test": SplitInfo(4)}

    def read(self, path: str | None = None, split: str | None = None, images: bool = True) -> Found:
        raise NotImplementedError


class Worst(Plain):
    """Questions ``1/a``, ``1/b`` are one group."""

    name = "worst"
    title = "Worst"

    def group(self, question: Question) -> str:
        return question.id.split("/")[0]


PLAIN = Headline(Plain(), {})
"""Accuracy over questions."""
WORST = WorstCase(Worst(), {})
"""A group is right only as a whole."""


def question(name: str, category: str = "") -> Question:
    """A question without image."""
    return Question(name, (), f"What is {name}?", "A", "choice", ("one", "two"), category=category)


def outcome(name: str, correct: bool, extracted: str | None = "A", category: str = "") -> Outcome:
    """One scored question."""
    return Outcome(question(name, category), Judgement(extracted, correct))


def results(
    headline: Headline, outcomes: Mapping[System, Sequence[Outcome]], expected: int = 4, unanswered: int = 0
) -> Results:
    """Results of one benchmark."""
    cells = tuple(summarise(headline, s, found, expected, unanswered, "strict") for s, found in outcomes.items())
    return Results("toy", "2026-01-01T00:00:00+00:00", {"seed": 0}, cells, compare_systems(headline, outcomes), ())
