"""From an answer to a verdict: the one comparison that the reward, the rule ``strict`` and the watch share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from racro_pl.text.answers import unbox
from racro_pl.text.choices import LETTERS, choice_letter, real_numbers
from racro_pl.text.comparison import Decide, answers_equal, fixes_order
from racro_pl.text.latex import strip_markup
from racro_pl.text.numbers import parse_number
from racro_pl.text.words import texts_equal
from racro_pl.types import Question

_LETTER = re.compile(r"[A-Z]")
_LETTER_LIST = re.compile(r"[A-H](?:\s*,\s*[A-H])+")
_LETTER_SPLIT = re.compile(r"[\s,;&/()\[\]{}.]+|\band\b|\boptions?\b|\bchoices?\b|\banswers?\b|[和、]", re.IGNORECASE)


def is_right(answer: str, question: Question, decide: Decide) -> bool | None:
    """Whether an answer, without its box, is a question's gold answer.

    A choice is right by its letter, a text by its words, anything else by the value it stands for.

    Returns:
        None when ``decide`` was asked and did not know.
    """
    gold = unbox(question.answer)
    if question.answer_type == "choice":
        return choice_letter(answer, question.choices, decide) == _gold_letter(gold)
    if question.answer_type == "text":
        if _LETTER_LIST.fullmatch(gold):
            return letter_set(answer) == letter_set(gold)
        return texts_equal(answer, gold)
    # Data sets file some choice questions under mathematics: "A. 3" is then the answer "A".
    if _LETTER.fullmatch(gold) and choice_letter(answer) == gold:
        return True
    verdict = answers_equal(answer, gold, decide, ordered=fixes_order(question.text))
    return verdict or (_equal_when_rounded(answer, gold, question) or verdict)


def _equal_when_rounded(answer: str, gold: str, question: Question) -> bool:
    """MathVista's floats: its questions ask for a number of decimals, to which both are rounded."""
    number = parse_number(gold)
    if question.metadata.get("answer_type") != "float" or number is None:
        return False
    precision = question.metadata.get("precision")
    digits = len(gold.partition(".")[2]) if precision is None else int(precision)
    return any(round(found, digits) == round(number, digits) for found in real_numbers(answer))


@lru_cache(maxsize=2_000)
def _gold_letter(gold: str) -> str:
    return choice_letter(gold) or gold.strip().upper()


def letter_set(text: str) -> frozenset[str] | None:
    """``A, C``, ``(A) and (C)``, ``AC``; None for anything else. A text of one option has the set of its letter."""
    parts: Sequence[str] = [part for part in _LETTER_SPLIT.split(strip_markup(text[:500])) if part]
    if len(parts) == 1 and re.fullmatch(r"[A-H]{1,8}", parts[0]):
        return frozenset(parts[0])
    if parts and all(re.fullmatch(r"[A-Ha-h]", part) for part in parts):
        return frozenset(part.upper() for part in parts)
    letter = choice_letter(text)
    return frozenset(letter) if letter and letter in LETTERS[:8] else None
