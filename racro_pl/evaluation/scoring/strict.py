r"""The rule ``strict``, our default: no judge, no luck.

The answer is the last ``\boxed{}`` of the text behind the thoughts; without a box, what a text plainly states at its
end. Letters are compared with letters, numbers and formulas exactly, words as words, by the benchmark's own kind of
answer. A non-answer ("N/A", "cannot be determined") is never right, and what cannot be extracted is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

from racro_pl.evaluation.outcomes import Judgement, Tools
from racro_pl.evaluation.scoring.final_answer import final_letter, final_value, final_words, is_non_answer
from racro_pl.evaluation.scoring.limits import scored_part
from racro_pl.text.answers import last_boxed, visible_text
from racro_pl.text.choices import LETTERS, choice_letter
from racro_pl.text.equality import normalize, parse_number, split_unit, strip_markup, texts_equal
from racro_pl.types import Question

MAX_BOX_CHARS = 500
"""A longer box is no final answer."""
DYNAMATH_TOLERANCE = Fraction(1, 1000)
"""DynaMath's own: answers are asked for to three decimals."""
_LAST_RELATION = re.compile(r".*(?:=|\\approx|≈)(?P<value>.+)", re.DOTALL)
_UNIT_MACRO = re.compile(
    r"(?P<value>.*[^\s\\,;~])(?:\s|\\[,; ]|~)*\\(?:text|textrm|mathrm|mbox)\s*\{[^{}]*\}(?:\s*\^\{?[23]\}?)?", re.DOTALL
)
_TRAILING_WORDS = re.compile(r"(?P<value>.*(?:\d\s|\}))[A-Za-z]{3}[A-Za-z ]{0,40}", re.DOTALL)
# A \boxed in a careless string: Python reads \b as a backspace, other writers lose the backslash alone.
_LOST_BACKSLASH = re.compile(r"(?:\x08|(?<!\\)b)oxed\s*\{")
_IN_SYMBOLS = re.compile(r"[\d\\]")
_BETWEEN_LETTERS = re.compile(r"[\s,;&()\[\]{}.]+|\band\b", re.IGNORECASE)


def default(question: Question, response: str, tools: Tools) -> Judgement:
    """By ``question.answer_type``: an option's letter, words, or mathematics (exact, without tolerance)."""
    if question.answer_type == "choice":
        return _choice(question, response, tools)
    if question.answer_type == "text":
        value = extract(response) or final_words(scored_part(visible_text(response)))
        return Judgement(value, value is not None and texts_equal(value, question.answer))
    return _judge(response, lambda value: _graded(value, question, tools))


def mathvista(question: Question, response: str, tools: Tools) -> Judgement:
    """Letters for choices; integers after dropping decimals (``3.0``), floats rounded to the question's precision.

    Both is what the authors' script does, and more lenient than VLMEvalKit, which compares floats exactly.
    """
    kind = question.metadata.get("answer_type")
    gold = parse_number(question.answer.strip())
    if question.answer_type == "choice" or kind not in ("integer", "float") or gold is None:
        return default(question, response, tools)
    digits = _precision(question)

    def right(value: str) -> bool:
        number = _number(value, tools)
        if number is None:
            return False
        if kind == "float":
            return round(number, digits) == round(gold, digits)
        return (int(number) if "." in value else number) == gold  # 4/3 is no decimal, and not 1

    return _judge(response, right)


def mmmu(question: Question, response: str, tools: Tools) -> Judgement:
    """Letters for choices; an open question is right when the answer equals one of its accepted answers."""
    accepted = question.metadata.get("answers") or (question.answer,)
    if question.answer_type == "choice" or len(accepted) < 2:
        return default(question, response, tools)
    golds = [replace(question, answer=str(gold)) for gold in accepted]
    return _judge(response, lambda value: any(_graded(value, gold, tools) for gold in golds))


def dynamath(question: Question, response: str, tools: Tools) -> Judgement:
    """Floats within 0.001, letters, or words that the gold answer contains: DynaMath's own comparisons."""
    gold = parse_number(question.answer.strip())
    if question.answer_type == "choice":
        return _choice(question, response, tools)
    if question.answer_type == "text":
        return _judge(response, lambda value: _contained(value, question.answer))

    def right(value: str) -> bool:
        number = _number(value, tools)
        return number is not None and gold is not None and abs(number - gold) <= DYNAMATH_TOLERANCE

    return _judge(response, right if gold is not None else lambda value: _graded(value, question, tools))


def logicvista(question: Question, response: str, tools: Tools) -> Judgement:
    """The set of letters must be the gold answer's set: ``A, C`` is right for neither ``A`` nor ``A, B, C``."""
    visible = scored_part(visible_text(response))
    box = _box(visible)
    letters = _letter_set(box) if box else None
    if letters is None:
        value = final_value(visible)
        letters = _letter_set(value) if value else None
    if letters is None and (letter := final_letter(visible)):
        letters = frozenset(letter)
    if letters is None:
        return Judgement(box, False)
    return Judgement(", ".join(sorted(letters)), letters == _letter_set(question.answer))


def extract(response: str) -> str | None:
    """The final answer of a response to an open question; None when there is none."""
    visible = scored_part(visible_text(response))
    value = _box(visible) or final_value(visible)
    return None if value is None or is_non_answer(value) else value


def _judge(response: str, right: Callable[[str], bool]) -> Judgement:
    value = extract(response)
    return Judgement(value, value is not None and right(value))


def _choice(question: Question, response: str, tools: Tools) -> Judgement:
    visible = scored_part(visible_text(response))
    box = _box(visible)
    # In a box, "Bike A" is a whole sentence.
    letter = choice_letter(box, question.choices) or final_letter(f"{box}.", question.choices) if box else None
    letter = letter or final_letter(visible, question.choices)
    if letter is None:
        value = box or final_value(visible)
        if value is None or is_non_answer(value) or (box is None and not _IN_SYMBOLS.search(value)):
            return Judgement(None, False)
        # An answer that names no option is an answer nevertheless, and a wrong one.
        letter = _option_of_value(value, question.choices, tools)
        if letter is None:
            return Judgement(value, False)
    return Judgement(letter, letter == question.answer.strip().upper())


def _option_of_value(value: str, choices: Sequence[str], tools: Tools) -> str | None:
    r"""The one option with this value: ``0.25`` names ``1:4``, and ``3.46`` names ``2\sqrt{3}``, of which it is the
    rounding, when no other option comes as near."""
    number = _number(value, tools)
    if number is None or not choices:
        return None
    decimals = re.search(r"\d\.(\d{2,6})\b", value)
    near = Fraction(1, 2 * 10 ** len(decimals[1])) if decimals else Fraction(1, 10**6)
    numbers = [_number(choice, tools) for choice in choices]
    named = [
        letter
        for letter, option in zip(LETTERS, numbers, strict=False)
        if option is not None and abs(option - number) <= near
    ]
    return named[0] if len(named) == 1 else None


def _box(visible: str) -> str | None:
    box = last_boxed(_LOST_BACKSLASH.sub(r"\\boxed{", visible))
    return box if box and len(box) <= MAX_BOX_CHARS else None


def _graded(value: str, question: Question, tools: Tools) -> bool:
    return any(tools.grader.grade(spelled, question) is True for spelled in _spellings(value))


def _spellings(value: str) -> list[str]:
    """A value as it stands, what follows its last "=", and that without the words behind it."""
    spellings = [value]
    if match := _LAST_RELATION.fullmatch(value):
        spellings.append(match["value"].strip())
    if match := _UNIT_MACRO.fullmatch(spellings[-1]):
        spellings.append(match["value"])
    if match := _TRAILING_WORDS.fullmatch(normalize(spellings[-1])):
        spellings.append(match["value"])
    return spellings


def _number(value: str, tools: Tools) -> Fraction | None:
    """The number that a value stands for, without units, percent and currency signs; formulas are evaluated."""
    for spelled in _spellings(value):
        plain = split_unit(normalize(spelled))[0].strip("$€£% ")
        number = parse_number(plain)
        if number is None and (evaluated := tools.grader.value(plain)) is not None:
            number = Fraction(evaluated)
        if number is not None:
            return number
    return None


def _precision(question: Question) -> int:
    precision = question.metadata.get("precision")
    return len(question.answer.partition(".")[2]) if precision is None else int(precision)


def _contained(value: str, gold: str) -> bool:
    words = normalize(value).strip(" .").lower()
    return bool(words) and words in gold.lower()


def _letter_set(text: str) -> frozenset[str] | None:
    """``A, C``, ``(A) and (C)``, ``AC``; None for anything else. A text of one option has the set of its letter."""
    parts = [part for part in _BETWEEN_LETTERS.split(strip_markup(text)) if part]
    if len(parts) == 1 and re.fullmatch(r"[A-H]{1,8}", parts[0]):
        return frozenset(parts[0])
    if parts and all(re.fullmatch(r"[A-Ha-h]", part) for part in parts):
        return frozenset(part.upper() for part in parts)
    letter = choice_letter(text)
    return frozenset(letter) if letter and letter in LETTERS[:8] else None
