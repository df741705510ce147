"""What an evaluation found: one cell per benchmark and system, comparisons, and the file they are kept in."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

from racro_pl.data.benchmarks.base import Benchmark
from racro_pl.evaluation.headlines import Headline
from racro_pl.evaluation.outcomes import Mode, Outcome
from racro_pl.evaluation.paper import SEVEN, PaperRow
from racro_pl.evaluation.plain import from_plain
from racro_pl.evaluation.statistics import PairedTest, bootstrap_interval, mean, paired_interval, paired_test
from racro_pl.types import RacroError

UNCATEGORISED = "uncategorised"
"""Class of the questions that lack one in a breakdown."""
VERSION = 2
"""Of the file's layout; another one is refused."""


@dataclass(frozen=True)
class System:
    """What answers a question: a captioner alone, or with a reasoner that never sees the image."""

    captioner: str
    """Name to show."""
    mode: Mode
    reasoner: str | None
    """None in mode ``direct``, in which the captioner answers itself."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode: got {self.mode!r}, expected one of {', '.join(get_args(Mode))}")
        if (self.mode == "direct") != (self.reasoner is None):
            raise ValueError(f"mode {self.mode} with reasoner {self.reasoner}: only direct has none")

    @property
    def label(self) -> str:
        """One line for tables."""
        if self.reasoner is None:
            return f"{self.captioner} · direct"
        return f"{self.captioner} → {self.reasoner} · {self.mode.replace('+', ' + ')}"


@dataclass(frozen=True)
class Cell:
    """One system on one benchmark. Scores and shares are in 0...1."""

    benchmark: str
    title: str
    """The benchmark's, as the paper spells it."""
    headline_name: str
    """What the headline figure is called: ``accuracy``, ``worst case``, ``strict``."""
    system: System
    headline: float | None
    """None when no question was answered."""
    low: float | None
    """95 % bootstrap interval over the benchmark's groups."""
    high: float | None
    n: int
    """Questions that were answered and scored: those that the headline is about."""
    expected: int
    """Questions of the complete split; 0 where no number is fixed."""
    unextracted: float
    """Share of the n responses in which the rule found no answer; they count as wrong."""
    unanswered: int
    """Questions that were asked and got no response: they count as nothing, least of all as wrong."""
    rule: str
    categories: dict[str, dict[str, tuple[float, int]]]
    """Breakdown to class to accuracy (share of right answers) and number of questions."""
    figures: dict[str, float]
    """The benchmark's further metrics, by name (``figures`` in results.json since its first version)."""

    @property
    def complete(self) -> bool:
        """Whether every question of the split counts in the headline."""
        return self.n >= self.expected


@dataclass(frozen=True)
class Average:
    """Unweighted mean of the seven headlines."""

    value: float
    complete: bool
    """Whether every one of the seven was scored on its complete split."""


@dataclass(frozen=True)
class Comparison:
    """Two systems on the questions of one benchmark that both answered."""

    benchmark: str
    title: str
    first: System
    second: System
    n: int
    """Common questions."""
    unit: str
    """What the headline is a mean over, and what is resampled and tested: ``questions``, ``seed questions``, ..."""
    groups: int
    """Common ones of these."""
    difference: float
    """Second headline minus first, over the common groups, in -1...1."""
    low: float
    """95 % cluster bootstrap interval of the difference."""
    high: float
    test: PairedTest
    """Over the common groups."""


def summarise(
    headline: Headline, system: System, outcomes: Sequence[Outcome], expected: int, unanswered: int, rule: str
) -> Cell:
    """Score one system on one benchmark, from one outcome per question with a response; see :class:`Cell`."""
    scores = list(headline.group_scores(outcomes).values())
    low, high = bootstrap_interval(scores) if scores else (None, None)
    unextracted = sum(outcome.judgement.extracted is None for outcome in outcomes)
    return Cell(
        benchmark=headline.benchmark.name,
        title=headline.benchmark.title,
        headline_name=headline.name,
        system=system,
        headline=mean(scores) if scores else None,
        low=low,
        high=high,
        n=len(outcomes),
        expected=expected,
        unextracted=unextracted / max(len(outcomes), 1),
        unanswered=unanswered,
        rule=rule,
        categories=_categories(headline.benchmark, outcomes),
        figures=dict(headline.metrics(outcomes)) if outcomes else {},
    )


def _categories(benchmark: Benchmark, outcomes: Sequence[Outcome]) -> dict[str, dict[str, tuple[float, int]]]:
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        for breakdown, name in benchmark.categories(outcome.question).items():
            right[breakdown][name].append(outcome.judgement.correct)
    for breakdown, classes in right.items():
        # Each breakdown is of all questions: those that lack the class stand under a name, not outside the table.
        lacking = [each for each in outcomes if breakdown not in benchmark.categories(each.question)]
        if lacking:
            classes[UNCATEGORISED] = [each.judgement.correct for each in lacking]
    return {
        breakdown: {name: (mean(classes[name]), len(classes[name])) for name in sorted(classes)}
        for breakdown, classes in right.items()
    }


def compare(
    headline: Headline,
    first: System,
    outcomes_first: Sequence[Outcome],
    second: System,
    outcomes_second: Sequence[Outcome],
) -> Comparison | None:
    """Two systems on the questions that both answered; None when there are none.

    Groups are rebuilt from the common questions alone: a group of which one system answered a part only would
    otherwise be scored over different questions.
    """
    by_id = {outcome.question.id: outcome for outcome in outcomes_second}
    pairs = [(outcome, by_id[outcome.question.id]) for outcome in outcomes_first if outcome.question.id in by_id]
    scores_first = headline.group_scores([a for a, _ in pairs])
    scores_second = headline.group_scores([b for _, b in pairs])
    paired = paired_interval(scores_first, scores_second)
    if paired is None:
        return None
    about = headline.benchmark
    return Comparison(
        about.name, about.title, first, second, len(pairs), headline.unit, paired.groups, paired.difference, paired.low,
        paired.high, paired_test(scores_first, scores_second),
    )  # fmt: skip


def compare_systems(headline: Headline, outcomes: Mapping[System, Sequence[Outcome]]) -> tuple[Comparison, ...]:
    """One comparison for each system but the first.

    First the question that training asks: every further captioner against the first (before against after) with the
    *same* reasoner, in the same mode. Then the first captioner's further systems against its first one.
    """
    systems = list(outcomes)
    base = systems[0].captioner if systems else ""
    pairs = [(replace(system, captioner=base), system) for system in systems if system.captioner != base]
    pairs += [(systems[0], system) for system in systems[1:] if system.captioner == base]
    found = (compare(headline, a, outcomes[a], b, outcomes[b]) for a, b in pairs if a in outcomes)
    return tuple(comparison for comparison in found if comparison is not None)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


@dataclass(frozen=True)
class Results:
    """Everything that an evaluation reports but the single answers."""

    name: str
    created: str
    """Date and time, ISO 8601 with offset."""
    settings: dict[str, Any]
    """What was run, in short: plain JSON values by name."""
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    paper: tuple[PaperRow, ...]

    @property
    def systems(self) -> tuple[System, ...]:
        """In the order of the cells."""
        return tuple(dict.fromkeys(cell.system for cell in self.cells))

    @property
    def benchmarks(self) -> dict[str, str]:
        """Name to title: the seven in the paper's order, then others."""
        titles = {cell.benchmark: cell.title for cell in self.cells}
        return {name: titles[name] for name in (*SEVEN, *titles) if name in titles}

    def cell(self, benchmark: str, system: System) -> Cell | None:
        """The cell of a benchmark (by name) and system."""
        return next((cell for cell in self.cells if (cell.benchmark, cell.system) == (benchmark, system)), None)

    def average(self, system: System) -> Average | None:
        """The system's AVG: only where the headlines of all seven benchmarks are there; others are passed over."""
        cells = [cell for name in SEVEN if (cell := self.cell(name, system)) is not None]
        headlines = [cell.headline for cell in cells if cell.headline is not None]
        if len(headlines) < len(SEVEN):
            return None
        return Average(mean(headlines), all(cell.complete for cell in cells))

    def to_json(self) -> str:
        """Plain, indented JSON, in ASCII: models' texts can hold halves of characters that no file takes.

        Raises:
            ValueError: a setting is no JSON value, or a number is not finite.
        """
        try:
            return json.dumps({"version": VERSION, **asdict(self)}, indent=2, allow_nan=False)
        except TypeError as error:
            raise ValueError(f"results take plain values only: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> Results:
        """What :meth:`to_json` wrote.

        Raises:
            RacroError: no JSON, another version, or fields that do not fit.
        """
        try:
            data = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise RacroError(f"results: not JSON ({error}); expected what `racro-pl test` wrote") from error
        if not isinstance(data, dict) or data.get("version") != VERSION:
            found = data.get("version") if isinstance(data, dict) else type(data).__name__
            raise RacroError(f"results: got version {found!r:.40}, expected {VERSION}; run the evaluation again")
        try:
            return from_plain(cls, {key: value for key, value in data.items() if key != "version"}, "results")
        except ValueError as error:
            raise RacroError(f"results: {error}") from error
