r"""The final value of a text that has no ``\boxed{}``: short outputs, "the answer is ...", a last sentence.

Conservative: where a text leaves open what its answer is, there is none. Only the first line and the end of a text
are looked at, so that time is bounded whatever the text.
"""

from __future__ import annotations

import re

from racro_pl.text.numbers import number_of_words
from racro_pl.text.sentences import (
    NEGATED,
    SHORT_CHARS,
    clause,
    end_of,
    is_non_answer,
    last_sentence,
    statements,
    unmarked,
)
from racro_pl.text.units import is_noun

MAX_WORDS = 5
"""A short line of more words is a sentence."""

_CONNECTIVE = re.compile(
    r"\b(?:is|are|was|were|be|equal to|equals?|get|gives?|obtain|have|has|contains?|count(?:ed)?|find|found|needs?"
    r"|costs?|requires?|so|thus|hence"
    r"|replaced (?:with|by))\b|[=≈：是为]|等于|共有?|[有得](?=\s*\d)|(?<![\d\s]):(?=\s|$)"
    r"|\\(?:approx|Rightarrow|implies)\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"^(?:approximately|about|around|roughly|exactly|nearly|only|simply"
    r"|thus|so|hence|therefore|(?:a )?total of|≈)\s*,?\s*",
    re.I,
)
_NUMBER = r"[-−+]?\s?(?:\\?[$€£]\s?)?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?"
_NUMBER_AND_UNIT = re.compile(
    rf"(?P<number>{_NUMBER})\s?"
    rf"(?:%|\\%|°|[\u4e00-\u9fff]{{1,4}}|[A-Za-z]{{1,3}}(?:\^?[23])?)?(?P<unit>(?:[\s-]+[A-Za-z][A-Za-z²³'’^23]*){{0,6}})"
)
_WORDS_BEHIND = re.compile(r"(?<=[\d}\w])\s+[A-Za-z]{2,}[A-Za-z²³ -]{0,40}(?:\^\{?[23]\}?)?$")
_FORMULA = re.compile(r"(?=.*(?:\d|\\(?:pi|infty|sqrt)))[^&;\n]*[^&;\n,+*/^_(\[{<=-]")
_IN_SYMBOLS = re.compile(r"[\d\\]")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_RATIO = re.compile(r"\d+(?:\.\d+)?(?:\s*:\s*\d+(?:\.\d+)?){1,3}(?:\s*[ap]\.?m\.?)?", re.IGNORECASE)
_ALTERNATIVES = re.compile(r"\b(?:or|and|between|to)\b|或|和")
_SEVERAL_EQUATIONS = re.compile(r"\S+\s*=[^=]{1,40}\b(?:or|and)\b[^=]{1,20}=.*")
_DENIED = re.compile(r"\bnot\b|n['’]t\b", re.IGNORECASE)
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_REASON = re.compile(r",?\s+(?:because|since|as|where|which)\b", re.IGNORECASE)
_COUNTED = re.compile(r"([A-Za-z]+(?:-[a-z]+)?)((?:\s+[a-z]+){0,4})")
_FIRST_IS_ANSWER = re.compile(r"(\S{1,30}) is (?:the|my) (?:final |correct )?(?:answer|result)")


def names_nothing(text: str) -> bool:
    """Whether a text without a box holds neither digit nor formula: of an option, it would have to be the words."""
    return _IN_SYMBOLS.search(text) is None


def final_value(text: str) -> str | None:
    """The value that a text ends up with, without units that are words; None when it is left open.

    Tried in turn: the whole text or its last line as an answer (``12 cm``); the last "the answer is 12"; the end of
    the last sentence, after "is", "=" and the like; and a first line that is a number.
    """
    plain = end_of(text)
    if "\n" not in plain and len(plain) <= SHORT_CHARS and (value := _whole_line(plain)):
        return value
    lines = plain.splitlines()
    if lines and (value := _number_like(lines[-1])):
        return value
    for statement in statements(plain):
        if value := _stated_value(statement):
            return value
    if value := _after_verb(last_sentence(plain)):
        return value
    first = unmarked(text[:SHORT_CHARS]).strip().split("\n", 1)
    return first[0].strip() if len(first) > 1 and re.fullmatch(_NUMBER, first[0].strip()) else None


def final_words(text: str) -> str | None:
    """The few words after the last "is" of the last sentence ("The color is dark red."); None when it has none."""
    sentence = last_sentence(end_of(text))
    if len(sentence) > SHORT_CHARS or NEGATED.search(sentence):
        return None
    *_, last = [0, *(match.end() for match in _CONNECTIVE.finditer(sentence))]
    value = _bare(sentence[last:])
    return value if last and 1 <= len(value.split()) <= 3 and not is_non_answer(value) else None


def _whole_line(line: str) -> str | None:
    value = _bare(line)
    words = _WORD.findall(value)
    if (
        not value
        or is_non_answer(value)
        or statements(line)
        or ((words or not value.isascii()) and _CONNECTIVE.search(value))
    ):
        return None  # of a sentence, what follows its verb counts
    return _number_like(value) or (value if len(words) <= MAX_WORDS else None)


def _stated_value(statement: str) -> str | None:
    value = _bare(_REASON.split(clause(statement), maxsplit=1)[0])
    if not value or is_non_answer(value):
        return None
    if number := _number_like(value):
        return number
    if len(value) <= SHORT_CHARS and _ALTERNATIVES.search(value) and any(char.isdigit() for char in value):
        return value  # "x = 2 or x = 3", "3 to 5": for the comparison to read
    if found := _after_verb(value):
        return found
    return value if len(_WORD.findall(value)) <= MAX_WORDS else None


def _number_like(text: str) -> str | None:
    """A number without the words after it, or a formula without words; None for anything else."""
    value = _bare(text)
    if len(value) > SHORT_CHARS:
        return None
    if _RATIO.fullmatch(value):
        return value
    if match := _NUMBER_AND_UNIT.fullmatch(value):
        # Known units stay, "5 cm" against "50 mm" is for the comparison to decide, and so do words that change the
        # number: "5 million people", "5 or more".
        tail = value[match.end("number") :].strip()
        if _CONNECTIVE.search(tail):
            return None  # "12 is wrong"
        return match["number"] if len(match["unit"].split()) > 1 and is_noun(tail) else value
    counted = _COUNTED.fullmatch(value)
    if counted and number_of_words(counted[1]) is not None and (not counted[2] or is_noun(counted[2].strip())):
        return counted[1]
    formula = _WORDS_BEHIND.sub("", value)
    balanced = all(formula.count(a) == formula.count(b) for a, b in ("()", "{}"))
    return (
        formula
        if balanced and not _CHINESE.search(formula) and not _WORD.search(formula) and _FORMULA.fullmatch(formula)
        else None
    )


def _after_verb(sentence: str) -> str | None:
    """The number after the last "is" or "=" of a sentence; None when something else stands there."""
    if several := _SEVERAL_EQUATIONS.search(sentence[-300:]):
        return _bare(several[0])
    if (first := _FIRST_IS_ANSWER.match(sentence)) and _number_like(first[1]):
        return first[1]
    if _DENIED.search(sentence):
        return None
    *_, last = [0, *(match.end() for match in _CONNECTIVE.finditer(sentence[-300:]))]
    return _number_like(sentence[-300:][last:]) if last else None


def _bare(text: str) -> str:
    value = text.strip().rstrip(".!。").strip()
    return _HEDGE.sub("", value).strip()
