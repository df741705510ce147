"""MathVista by its authors' script ``calculate_score``: an extraction is normalised, then compared as a string.

The extraction is the work of a language model before it, so ``response`` is here that extraction and not the raw text.
A choice question always gets some option, the one that is spelled most alike: "N/A" too, and at times by luck the
right one. That is their rule, and the reason why ``strict`` is the default.
"""

from __future__ import annotations

import re

from racro_pl.evaluation.outcomes import Judgement, Tools
from racro_pl.text.choices import LETTERS
from racro_pl.types import Question

MAX_COMPARED_CHARS = 2_000
"""Only so much of an extraction is compared with the options' spelling; none of them is nearly as long."""
_LETTER = re.compile(r"\(([a-zA-Z])\)")


def mathvista(question: Question, response: str, tools: Tools) -> Judgement:
    """The rule of MathVista's authors; ``response`` is the extracted answer."""
    kind = question.metadata.get("answer_type")
    predicted: str | None
    if question.answer_type == "choice":
        predicted = _nearest_choice(response.strip(), question.choices)
        gold = question.choices[LETTERS.index(question.answer)]
    else:
        predicted = _normalised(response, kind, question.metadata.get("precision"))
        gold = str(question.metadata.get("answer_raw", question.answer))
    return Judgement(predicted, predicted == gold)


def _nearest_choice(extraction: str, choices: tuple[str, ...]) -> str:
    found = _LETTER.search(extraction)
    letter = found[1].upper() if found else extraction
    if len(letter) == 1 and letter in LETTERS[: len(choices)]:
        return choices[LETTERS.index(letter)]
    # The first of equals, as min() has it.
    return min(choices, key=lambda choice: edit_distance(letter[:MAX_COMPARED_CHARS], choice))


def _normalised(extraction: str, kind: str | None, precision: float | None) -> str | None:
    try:
        if kind == "integer":
            return str(int(float(extraction)))
        if kind == "float":
            return str(round(float(extraction), None if precision is None else int(precision)))
    except (ValueError, OverflowError):
        return None
    return extraction


def edit_distance(first: str, second: str) -> int:
    """Levenshtein distance: insertions, deletions and substitutions of one character, each at cost 1.

    Time is the product of the lengths.
    """
    row = list(range(len(second) + 1))
    for i, char in enumerate(first, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(second, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (char != other))
    return row[-1]
