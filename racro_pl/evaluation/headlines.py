"""How each benchmark is scored: the rules that judge its answers, and its headline over the judged questions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import ClassVar

from racro_pl.data.benchmarks import BENCHMARKS, Benchmark, find_benchmark
from racro_pl.data.benchmarks.wemath import is_complete
from racro_pl.evaluation.outcomes import Outcome, Rule
from racro_pl.evaluation.scoring import official, strict, vlmevalkit
from racro_pl.types import RacroError


class Headline:
    """The headline of most benchmarks: accuracy, the share of right answers.

    Args:
        benchmark: says how questions are grouped.
        rules: by name: ``strict`` always; ``vlmevalkit`` and ``official`` where they exist.
    """

    name: ClassVar[str] = "accuracy"
    """What the headline is called: ``accuracy``, ``worst case``, ``strict``."""
    unit: ClassVar[str] = "questions"
    """What it is a mean over."""
    further: ClassVar[tuple[str, ...]] = ()
    """Names that :meth:`metrics` may give."""

    def __init__(self, benchmark: Benchmark, rules: Mapping[str, Rule]) -> None:
        self.benchmark = benchmark
        self.rules = rules

    def rule(self, name: str) -> Rule:
        """A rule by its name.

        Raises:
            RacroError: the benchmark has none such.
        """
        if name not in self.rules:
            raise RacroError(f"{self.benchmark.title} has no rule {name!r}; it has {', '.join(self.rules)}")
        return self.rules[name]

    def group_score(self, outcomes: Sequence[Outcome]) -> float:
        """Score of one group in 0...1: by default the share of right answers."""
        return sum(outcome.judgement.correct for outcome in outcomes) / len(outcomes)

    def group_scores(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """Score of every group; their mean is the headline."""
        return {name: self.group_score(members) for name, members in self.groups(outcomes).items()}

    def groups(self, outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
        """The outcomes of every group that counts."""
        groups: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in outcomes:
            groups[self.benchmark.group(outcome.question)].append(outcome)
        return dict(groups)

    def metrics(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """Further metrics of the whole benchmark, in 0...1, by name."""
        return {}


class WorstCase(Headline):
    """DynaMath's: a seed question counts when all its variants are right."""

    name = "worst case"
    unit = "seed questions"
    further = ("average",)

    def group_score(self, outcomes: Sequence[Outcome]) -> float:
        """1 where every variant is right, else 0. Of a part of the benchmark, every variant that is there."""
        return float(all(outcome.judgement.correct for outcome in outcomes))

    def metrics(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """The accuracy over all variants."""
        return {"average": sum(outcome.judgement.correct for outcome in outcomes) / len(outcomes)} if outcomes else {}


class StrictMastery(Headline):
    """WeMath's strict score over its problems."""

    name = "strict"
    unit = "problems"
    further = ("loose", "IK", "IG", "CM strict", "CM loose", "RM strict", "RM loose", "S1", "S2", "S3")

    def group_score(self, outcomes: Sequence[Outcome]) -> float:
        """Share of the strict score: 1 for complete mastery, 0.5 where only the whole is wrong, else 0."""
        return {"CM": 1.0, "IG": 0.5}.get(_kind(outcomes, strict=True), 0.0)

    def groups(self, outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
        """Every complete problem; one that lacks a part has no kind, so it does not count."""
        return {
            name: members
            for name, members in super().groups(outcomes).items()
            if is_complete([member.question.metadata["key"] for member in members])
        }

    def metrics(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """The loose score, the four kinds as shares of the problems, and accuracies of rows.

        With every step right, the whole is right (CM, complete mastery) or wrong (IG, inadequate generalisation);
        else the whole is wrong (IK, insufficient knowledge) or right (RM, rote memorisation). Loosely, one right
        step is enough for mastery.
        """
        metrics = {}
        problems = self.groups(outcomes)
        if problems:
            tight = Counter(_kind(members, strict=True) for members in problems.values())
            loose = Counter(_kind(members, strict=False) for members in problems.values())
            total = len(problems)
            metrics = {
                "loose": (loose["CM"] + 0.5 * loose["IG"]) / total,
                "IK": tight["IK"] / total,
                "IG": tight["IG"] / total,
                "CM strict": tight["CM"] / total,
                "CM loose": loose["CM"] / total,
                "RM strict": tight["RM"] / total,
                "RM loose": loose["RM"] / total,
            }
        for label in ("S1", "S2", "S3"):
            right = [each.judgement.correct for each in outcomes if each.question.category == label]
            if right:
                metrics[label] = sum(right) / len(right)
        return metrics


def _kind(members: Sequence[Outcome], strict: bool) -> str:
    steps = []
    whole = False
    for member in members:
        if str(member.question.metadata["key"]).endswith("multi"):
            whole = member.judgement.correct
        else:
            steps.append(member.judgement.correct)
    if whole:
        return "CM" if (all(steps) if strict else any(steps)) else "RM"
    return "IG" if all(steps) else "IK"


_RULES: dict[str, dict[str, Rule]] = {
    "mathvista": {"strict": strict.mathvista, "vlmevalkit": vlmevalkit.mathvista, "official": official.mathvista},
    "mathvision": {"strict": strict.default, "vlmevalkit": vlmevalkit.mathvision, "official": official.mathvision},
    "mathverse": {"strict": strict.default, "vlmevalkit": vlmevalkit.mathverse},
    "mmmu": {"strict": strict.mmmu, "vlmevalkit": vlmevalkit.mmmu},
    "wemath": {"strict": strict.default, "vlmevalkit": vlmevalkit.wemath},
    "dynamath": {"strict": strict.dynamath, "vlmevalkit": vlmevalkit.dynamath},
    "logicvista": {"strict": strict.logicvista, "vlmevalkit": vlmevalkit.logicvista},
    "figures": {"strict": strict.default},
    "reckoning": {"strict": strict.default},
    "own": {"strict": strict.default},
}
_HEADLINES: dict[str, type[Headline]] = {"wemath": StrictMastery, "dynamath": WorstCase}

HEADLINES: dict[str, Headline] = {
    name: _HEADLINES.get(name, Headline)(benchmark, _RULES[name]) for name, benchmark in BENCHMARKS.items()
}
"""By the benchmark's name, in the order of :data:`racro_pl.data.benchmarks.BENCHMARKS`."""


def find_headline(name: str) -> Headline:
    """As :func:`racro_pl.data.benchmarks.find_benchmark`."""
    return HEADLINES[find_benchmark(name).name]
