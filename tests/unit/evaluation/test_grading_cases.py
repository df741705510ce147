"""Answer forms with their expected verdicts, by class. The file is not part of the repository.

As a script, ``python -m tests.unit.evaluation.test_grading_cases [-v]`` prints the figures of each class.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from racro_pl.evaluation.headlines import find_headline
from racro_pl.evaluation.outcomes import Tools
from racro_pl.reward.grader import Grader
from racro_pl.text.answers import extract_answer
from racro_pl.types import Question

DATA = Path(os.environ.get("RACRO_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data")
CASES = DATA / "grading" / "cases.jsonl"


class Found(NamedTuple):
    """One case: what it is, the verdict of the rule ``strict``, and the reward (None without a box)."""

    case: dict
    strict: bool
    reward: bool | None


def measure() -> list[Found]:
    """Every case, graded by the rule ``strict`` and, where its response has a box, as a reward."""
    found = []
    with Grader(limit_s=100.0) as grader:  # a busy machine
        tools = Tools(grader)
        for line in CASES.read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            question = Question(
                str(case["id"]), (), "", case["gold"], case["type"], tuple(case["choices"]), metadata=case["metadata"]
            )
            strict = find_headline(case["benchmark"]).rule("strict")(question, case["response"], tools).correct
            boxed = "\\boxed" in case["response"]
            reward = grader.grade(extract_answer(case["response"]), question) is True if boxed else None
            found.append(Found(case, strict, reward))
    return found


@pytest.mark.skipif(not CASES.is_file(), reason="needs answer forms with verdicts: grading/ in RACRO_SHARED_DATA")
def test_verdicts_are_the_expected_ones():
    found = measure()
    credits = [row.case["id"] for row in found if row.strict and not row.case["expected"]]
    refusals = [row.case["id"] for row in found if not row.strict and row.case["expected"]]
    assert len(credits) <= 2, credits
    assert len(refusals) <= 4, refusals
    boxed = [row for row in found if row.reward is not None]
    assert sum(row.reward and not row.case["expected"] for row in boxed) <= 2
    assert sum(not row.reward and row.case["expected"] for row in boxed) <= 4
    assert sum(row.reward != row.strict for row in boxed) <= 4


def main() -> None:
    """Print false credits and refusals per class; with ``-v``, the cases too."""
    found = measure()
    figures: dict[str, Counter[str]] = {}
    for case, strict, reward in found:
        counts = figures.setdefault(case["cls"], Counter())
        counts["n"] += 1
        for name, verdict in (("strict", strict), ("reward", reward)):
            if verdict is None:
                continue
            counts[f"{name}+"] += verdict and not case["expected"]
            counts[f"{name}-"] += not verdict and case["expected"]
        counts["differ"] += reward is not None and reward != strict
        if "-v" in sys.argv and (strict != case["expected"] or reward not in (None, case["expected"])):
            print(case["id"], case["cls"], repr(case["response"]), "gold", repr(case["gold"]), case["choices"],
                  "expected", case["expected"], "strict", strict, "reward", reward)  # fmt: skip
    columns = ("n", "strict+", "strict-", "reward+", "reward-", "differ")
    figures["all"] = sum(figures.values(), Counter())
    for name, counts in figures.items():
        print(f"{name:42}", *(f"{counts[column]:7}" for column in columns))
    print(f"{'':42}", *(f"{column:>7}" for column in columns))


if __name__ == "__main__":
    main()
