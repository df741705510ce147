"""The tables of docs/grading_examples.md are true: what they credit is credited, and what they do not is not."""

import re
from pathlib import Path

import pytest

from racro_pl.evaluation.outcomes import Tools
from racro_pl.evaluation.scoring import strict
from racro_pl.reward.grader import Grader
from racro_pl.text.answers import extract_answer
from racro_pl.types import Question

PAGE = Path(__file__).parents[3] / "docs" / "grading_examples.md"
OPTIONS = ("50°", "60 cm", "east", "Basket 4", "1:4")
HEADER = "| class | gold | credited | not credited | why |"
TYPES = {"Choices": "choice", "Texts": "text"}


def examples():
    for table in PAGE.read_text(encoding="utf-8").split(HEADER)[1:]:
        before = PAGE.read_text(encoding="utf-8").split(HEADER + table)[0].rstrip().rsplit("\n\n", 1)[-1]
        kind = next((kind for name, kind in TYPES.items() if before.startswith(name)), "math")
        for line in table.strip().splitlines()[1:]:
            if not line.startswith("|"):
                break
            name, gold, credited, not_credited, _ = (cell.strip() for cell in line.strip("|").split("|"))
            for cell, right in ((credited, True), (not_credited, False)):
                for answer in re.findall(r"`([^`]+)`", cell):
                    yield pytest.param(kind, gold.strip("`"), answer, right, id=f"{name}: {answer}")


@pytest.fixture(scope="module")
def grader():
    with Grader(limit_s=100.0) as grader:  # a busy machine
        yield grader


@pytest.mark.parametrize(("kind", "gold", "answer", "right"), examples())
def test_an_example_of_the_page(grader, kind, gold, answer, right):
    choices = ()
    if kind == "choice":
        choices = numbered() if gold == "D" else OPTIONS
    question = Question("q", (), "?", gold, kind, choices)
    assert grader.grade(answer, question) is right
    # The reward and the rule are one: what a box holds is read alike.
    boxed = rf"So it is \boxed{{{answer}}}."
    assert extract_answer(boxed) == answer
    assert strict.default(question, boxed, Tools(grader)).correct is right


def numbered():
    """All options of one kind, as the row about numbered things says."""
    return tuple(f"Basket {number}" for number in range(1, 6))
