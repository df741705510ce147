"""The rule ``vlmevalkit``: the path that VLMEvalKit takes before its judge, and where it asks the judge.

Like VLMEvalKit it reads the whole response, thoughts included, and no box. Without a judge, what its first step
leaves open stays unextracted: MathVerse and LogicVista, which have no such step, then score nothing at all. One thing
is left out on purpose: VLMEvalKit gives a random option to an MMMU answer that its judge cannot place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import isfinite, pi

from racro_pl.evaluation.outcomes import Judge, Judgement, Tools, scored_part
from racro_pl.evaluation.scoring.can_infer import can_infer
from racro_pl.evaluation.scoring.judge import (
    COMPARE_PROMPT,
    EXTRACT_PROMPT,
    LETTERS_PROMPT,
    MATCH_PROMPT,
    SHORTEN_PROMPT,
    filled,
)
from racro_pl.reward.grader import Grader
from racro_pl.text.choices import LETTERS
from racro_pl.types import Question

EXTRACTION_ATTEMPTS = 5
MATCHING_ATTEMPTS = 3
TOLERANCE = 1e-6
DYNAMATH_TOLERANCE = Fraction(1, 1000)
_UNREAD = Judgement(None, False)
_DYNAMATH_FORMS = {
    "choice": "It is an option: write its letter alone.",
    "math": "It is a number: write it as a decimal with three places.",
    "text": "Write a few words; numbers as decimals with three places.",
}


def mathvista(question: Question, response: str, tools: Tools) -> Judgement:
    """Option by ``can_infer``; numbers as Python reads them, floats without tolerance; lists are never right."""
    return _extracted(question, scored_part(response), tools, lambda value: _mathvista_equal(value, question))


def mathvision(question: Question, response: str, tools: Tools) -> Judgement:
    """Option by ``can_infer``; other answers equal as strings, or as formulas up to 1e-6."""
    return _extracted(
        question, scored_part(response), tools, lambda value: same_formula(value, question.answer, tools.grader)
    )


def mathverse(question: Question, response: str, tools: Tools) -> Judgement:
    """The judge extracts; an extraction that is not the gold answer word for word goes to the judge once more."""
    value = _first_answer(tools.judge, _extraction(question, scored_part(response)))
    if value is None or tools.judge is None:
        return _UNREAD
    if value == question.answer.strip():
        return Judgement(value, True)
    asked = str(question.metadata.get("question_for_eval") or question.text)
    prompt = filled(COMPARE_PROMPT, value, question=asked, gold=question.answer)
    verdict = _first_answer(tools.judge, prompt, lambda reply: reply[:1] in ("0", "1"))
    return Judgement(value, verdict is not None and verdict.startswith("1"))


def mmmu(question: Question, response: str, tools: Tools) -> Judgement:
    """Option by ``can_infer``, else by the judge. An open question has two: its answer, and "Other Answers"."""
    if question.answer_type == "choice":
        return _matched(question, _options(question), question.answer, response, tools)
    return _matched(question, {"A": question.answer, "B": "Other Answers"}, "A", response, tools)


def wemath(question: Question, response: str, tools: Tools) -> Judgement:
    """Option by ``can_infer``, else by the judge."""
    return _matched(question, _options(question), question.answer, response, tools)


def dynamath(question: Question, response: str, tools: Tools) -> Judgement:
    """The ``short answer`` of a JSON object in the response, else what stands between its outermost braces.

    For words the answer must be part of the gold answer; a whole response hardly ever is, and an empty one, which
    VLMEvalKit counts as right, is not read here.
    """
    kind = question.answer_type
    text = _between_braces(scored_part(response))
    value = _parse_short(_json_answer(text), kind) or _parse_short(text, kind)
    if value is None and tools.judge is not None:
        prompt = filled(SHORTEN_PROMPT, text, form=_DYNAMATH_FORMS[kind])
        value = _parse_short(tools.judge.ask(prompt), kind)
    gold = question.answer.strip()
    if value is None:
        # Their last resort for options: the gold letter among the first three characters.
        lucky = kind == "choice" and gold.upper() in text[:3]
        return Judgement(gold.upper(), True) if lucky else _UNREAD
    if kind == "math":
        try:
            return Judgement(value, abs(Fraction(value) - Fraction(gold)) <= DYNAMATH_TOLERANCE)
        except (ValueError, ZeroDivisionError):
            return Judgement(value, False)
    return Judgement(value, value == gold.upper() if kind == "choice" else value.lower() in gold.lower())


def logicvista(question: Question, response: str, tools: Tools) -> Judgement:
    """The judge names all letters; they must be the gold answer's, whatever their order."""
    prompt = filled(LETTERS_PROMPT, scored_part(response), question=question.text)
    letters = _first_answer(tools.judge, prompt, lambda reply: reply.isalpha() and reply.isupper())
    if letters is None:
        return _UNREAD
    gold = sorted(letter.strip().lower() for letter in question.answer.split(","))
    return Judgement(letters, sorted(letters.lower()) == gold)


def same_formula(answer: str, gold: str, grader: Grader) -> bool:
    """Equal as strings, whatever their case, or in value up to 1e-6, or symbolically."""
    answer, gold = answer.lower().strip(), gold.lower().strip()
    if answer == gold:
        return True
    first, second = grader.value(answer), grader.value(gold)
    if first is not None and second is not None:
        return abs(first - second) < TOLERANCE
    return (first is None) == (second is None) and grader.grade(answer, Question("", (), "", gold, "math")) is True


def _extracted(question: Question, response: str, tools: Tools, equal: Callable[[str], bool]) -> Judgement:
    """The path that MathVista and MathVision share: first step on the raw response, then on the judge's extraction."""
    choices = _options(question)
    if question.answer_type == "choice":
        value = can_infer(response, choices)
        if value is None and (told := _first_answer(tools.judge, _extraction(question, response))):
            value = can_infer(told, choices)
        return Judgement(value, value == question.answer)
    if equal(response):
        return Judgement(response.strip(), True)
    value = _first_answer(tools.judge, _extraction(question, response))
    return Judgement(value, value is not None and equal(value))


def _mathvista_equal(value: str, question: Question) -> bool:
    try:
        match question.metadata.get("answer_type"):
            case "integer":
                return int(value) == int(question.answer)
            case "float":
                return float(value) == float(question.answer)
    except ValueError:
        pass
    return False


def _matched(question: Question, options: Mapping[str, str], gold: str, response: str, tools: Tools) -> Judgement:
    response = scored_part(response)
    value = can_infer(response, options)
    if value is None:
        listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
        prompt = filled(MATCH_PROMPT, response, question=question.text, options=listed)
        told = _first_answer(
            tools.judge, prompt, lambda reply: can_infer(reply, options) is not None, MATCHING_ATTEMPTS
        )
        value = can_infer(told, options) if told else None
    return Judgement(value, value == gold)


def _first_answer(
    judge: Judge | None,
    prompt: str,
    usable: Callable[[str], bool] = bool,
    attempts: int = EXTRACTION_ATTEMPTS,
) -> str | None:
    """The judge's first usable answer to a prompt; None without a judge, or when no attempt gave one."""
    for sample in range(attempts if judge is not None else 0):
        reply = (judge.ask(prompt, sample) or "").strip() if judge is not None else ""
        if reply and usable(reply):
            return reply
    return None


def _extraction(question: Question, response: str) -> str:
    return filled(EXTRACT_PROMPT, response, question=question.text)


def _options(question: Question) -> dict[str, str]:
    return dict(zip(LETTERS, question.choices, strict=False))


def _between_braces(text: str) -> str:
    start, end = text.find("{"), text.rfind("}")
    return (text[start : end + 1] if 0 <= start < end else text).replace("\\", "")


def _json_answer(text: str) -> str | None:
    try:
        found = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    answer = found.get("short answer") if isinstance(found, dict) else None
    return answer if isinstance(answer, str) else None


def _parse_short(answer: str | None, kind: str) -> str | None:
    if not answer:
        return None
    if kind == "choice":
        present = [letter for letter in "ABCDE" if letter in answer.upper()]
        return answer.upper() if len(answer) == 1 else present[0] if len(present) == 1 else None
    if kind == "text":
        return answer
    first = answer.split(" ", 1)[0]
    factor = pi if first.endswith("π") else 1.0
    try:
        number = float(first.removesuffix("π") or "1") * factor
    except ValueError:
        return None
    return repr(number) if isfinite(number) else None
