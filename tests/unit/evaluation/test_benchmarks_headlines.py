"""Headline figures: the mean over groups, WeMath's kinds, DynaMath's worst case; breakdowns; which rules there are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from racro_pl.data.benchmarks import BENCHMARKS
from racro_pl.evaluation.headlines import HEADLINES
from racro_pl.evaluation.outcomes import Judgement, Outcome
from racro_pl.types import Question


def outcome(correct: bool, **metadata: object) -> Outcome:
    key = str(metadata.get("key", ""))
    category = f"S{key[0]}" if key.endswith("multi") else "S1"
    question = Question("x", (), "?", "A", "choice", category=category, metadata=metadata)
    return Outcome(question, Judgement("A", correct))


def problem(group: str, steps: Sequence[bool], whole: bool) -> list[Outcome]:
    """The outcomes of one WeMath problem."""
    count = len(steps)
    parts = [outcome(step, group=group, key=f"{count}steps_{n}") for n, step in enumerate(steps, start=1)]
    return [*parts, outcome(whole, group=group, key=f"{count}steps_multi")]


def mean(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)


def test_wemath_scores_and_kinds() -> None:
    outcomes = [
        *problem("a", [True, True], True),  # CM: strict 1, loose 1
        *problem("b", [True, True], False),  # IG: 0.5, 0.5
        *problem("c", [True, False], True),  # strictly RM: 0; loosely CM: 1
        *problem("d", [False, False, False], True),  # RM in both: 0, 0
        *problem("e", [True, True, False], False),  # IK: 0, 0
    ]
    wemath = HEADLINES["wemath"]
    assert wemath.name == "strict"
    # strict (1 + 0.5) / 5 = 0.3
    assert wemath.group_scores(outcomes) == {"a": 1.0, "b": 0.5, "c": 0.0, "d": 0.0, "e": 0.0}
    assert mean(wemath.group_scores(outcomes)) == pytest.approx(0.3)
    assert wemath.metrics(outcomes) == pytest.approx(
        {
            "loose": 0.5,  # (1 + 1 + 0.5) / 5
            "IK": 0.2,
            "IG": 0.2,
            "CM strict": 0.2,
            "CM loose": 0.4,
            "RM strict": 0.4,
            "RM loose": 0.2,
            "S1": 7 / 12,  # steps right: 2 + 2 + 1 + 0 + 2 of 2 + 2 + 2 + 3 + 3
            "S2": 2 / 3,  # a and c of a, b, c
            "S3": 1 / 2,  # d of d, e
        }
    )


@pytest.mark.parametrize(
    "steps", [[True, True], [True, False], [False, False], [True, True, True], [True, False, False]]
)
@pytest.mark.parametrize("whole", [True, False])
def test_wemath_strict_and_loose_are_the_papers_formulas(steps: list[bool], whole: bool) -> None:
    wemath = HEADLINES["wemath"]
    outcomes = [*problem("a", steps, whole), *problem("b", [True, True], False)]
    shares = wemath.metrics(outcomes)
    # (n - 0.5 IG - RM - IK) / n, and the same with the loose RM.
    assert mean(wemath.group_scores(outcomes)) == pytest.approx(
        1 - 0.5 * shares["IG"] - shares["RM strict"] - shares["IK"]
    )
    assert shares["loose"] == pytest.approx(1 - 0.5 * shares["IG"] - shares["RM loose"] - shares["IK"])


def test_wemath_counts_complete_problems_only() -> None:
    lone = problem("a", [True, True], True)[:2]
    assert HEADLINES["wemath"].group_scores(lone) == {}
    # No problem, no kind; but two one-step rows, both right.
    assert HEADLINES["wemath"].metrics(lone) == {"S1": 1.0}
    whole = problem("b", [True, True], True)
    assert HEADLINES["wemath"].group_scores([*lone, *whole]) == {"b": 1.0}


def test_dynamath_counts_a_seed_when_all_its_variants_are_right() -> None:
    outcomes = [outcome(True, seed=1, variant=variant) for variant in range(1, 11)]
    outcomes += [outcome(variant != 7, seed=2, variant=variant) for variant in range(1, 11)]
    dynamath = HEADLINES["dynamath"]
    assert dynamath.name == "worst case"
    assert dynamath.group_scores(outcomes) == {"1": 1.0, "2": 0.0}
    # 19 of 20 variants.
    assert dynamath.metrics(outcomes) == pytest.approx({"average": 0.95})
    assert dynamath.metrics([]) == {}


def test_other_headlines_are_means_over_questions() -> None:
    first = Outcome(Question("1", (), "?", "3", "math", category="algebra"), Judgement("3", True))
    second = Outcome(Question("2", (), "?", "3", "math", category="algebra"), Judgement(None, False))
    assert HEADLINES["logicvista"].group_scores([first, second]) == {"1": 1.0, "2": 0.0}


def test_the_seven_of_the_paper_and_their_rules() -> None:
    seven = [name for name, benchmark in BENCHMARKS.items() if benchmark.in_average]
    assert seven == ["mathvista", "mathvision", "mathverse", "mmmu", "wemath", "dynamath", "logicvista"]
    for name in seven:
        assert {"strict", "vlmevalkit"} <= set(HEADLINES[name].rules)
    assert {name for name in BENCHMARKS if "official" in HEADLINES[name].rules} == {"mathvista", "mathvision"}
    assert set(HEADLINES["figures"].rules) == set(HEADLINES["reckoning"].rules) == {"strict"}


def test_sizes_of_the_complete_splits() -> None:
    sizes = {name: next(iter(benchmark.splits.values())).questions for name, benchmark in BENCHMARKS.items()}
    # WeMath: 525 problems; 360 of three rows, 165 of four: 1080 + 660.
    assert sizes == {
        "mathvista": 1000, "mathvision": 3040, "mathverse": 788, "mmmu": 900, "wemath": 1740, "dynamath": 5010,
        "logicvista": 447, "figures": 500, "reckoning": 500, "own": 0,
    }  # fmt: skip
    assert BENCHMARKS["mathvision"].splits["testmini"].questions == 304
