r"""The rule ``strict``, our default: no judge, no luck.

The answer is the last ``\boxed{}`` of the text after the thoughts; without a box, what a text plainly states at its
end. Letters are compared with letters, numbers and formulas exactly, words as words, by the benchmark's own kind of
answer. A non-answer ("N/A", "cannot be determined") is never right, and what cannot be extracted is not guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from racro_pl.evaluation.outcomes import Judgement, Tools, scored_part
from racro_pl.text.answers import boxed_answer, tagged_answer, visible_text
from racro_pl.text.choices import choice_letter, real_numbers
from racro_pl.text.final_letter import final_letter
from racro_pl.text.final_value import final_value, final_words, names_nothing
from racro_pl.text.latex import normalize
from racro_pl.text.numbers import parse_number
from racro_pl.text.sentences import end_of, is_non_answer, statements
from racro_pl.text.verdict import is_right, letter_set
from racro_pl.text.words import texts_equal
from racro_pl.types import Question

DYNAMATH_TOLERANCE = Fraction(1, 1000)
"""DynaMath's own: answers are asked for to three decimals."""


def default(question: Question, response: str, tools: Tools) -> Judgement:
    """By ``question.answer_type``: an option's letter, words, or mathematics (exact, without tolerance)."""
    if question.answer_type == "choice":
        return _choice(question, response, tools)
    if question.answer_type == "text":
        value = extract(response, question.answer) or final_words(scored_part(visible_text(response)))
        return Judgement(value, value is not None and is_right(value, question, tools.grader.decide) is True)
    return _judge(question, response, lambda value: _graded(value, question, tools))


def mathvista(question: Question, response: str, tools: Tools) -> Judgement:
    """Letters for choices; integers after dropping decimals (``3.0``), floats rounded to the question's precision.

    Both is what the authors' script does, and more lenient than VLMEvalKit, which compares floats exactly.
    """
    gold = parse_number(question.answer.strip())
    if question.answer_type == "choice" or question.metadata.get("answer_type") != "integer" or gold is None:
        return default(question, response, tools)
    # 4/3 is no decimal, and not 1
    return _judge(
        question,
        response,
        lambda value: any((int(number) if "." in value else number) == gold for number in real_numbers(value)),
    )


def mmmu(question: Question, response: str, tools: Tools) -> Judgement:
    """Letters for choices; an open question is right when the answer equals one of its accepted answers."""
    accepted = question.metadata.get("answers") or (question.answer,)
    if question.answer_type == "choice" or len(accepted) < 2:
        return default(question, response, tools)
    golds = [replace(question, answer=str(gold)) for gold in accepted]
    return _judge(question, response, lambda value: any(_graded(value, gold, tools) for gold in golds))


def dynamath(question: Question, response: str, tools: Tools) -> Judgement:
    """Floats within 0.001, letters, or words that the gold answer contains: DynaMath's own comparisons."""
    gold = parse_number(question.answer.strip())
    if question.answer_type == "choice":
        return _choice(question, response, tools)
    if question.answer_type == "text":
        return _judge(question, response, lambda value: _contained(value, question.answer))

    def right(value: str) -> bool:
        return gold is not None and any(abs(number - gold) <= DYNAMATH_TOLERANCE for number in real_numbers(value))

    return _judge(question, response, right if gold is not None else lambda value: _graded(value, question, tools))


def logicvista(question: Question, response: str, tools: Tools) -> Judgement:
    """The set of letters must be the gold answer's set: ``A, C`` is right for neither ``A`` nor ``A, B, C``."""
    visible = scored_part(visible_text(response))
    marked = _marked(visible)[0]
    letters = letter_set(marked) if marked else None
    if letters is None and not marked:
        said = next((statement.split("\n", 1)[0].rstrip(" .") for statement in statements(end_of(visible))), "")
        letters = letter_set(said)
    if letters is None and not marked:
        value = final_value(visible)
        letters = letter_set(value) if value else None
        if letters is None and (letter := final_letter(visible)):
            letters = frozenset(letter)
    if letters is None:
        return Judgement(marked, False)
    return Judgement(", ".join(sorted(letters)), letters == letter_set(question.answer))


def extract(response: str, gold: str = "") -> str | None:
    """The final answer of a response to an open question; None when there is none.

    "None" and "undetermined" are answers only where the gold answer is of their kind.
    """
    visible = scored_part(visible_text(response))
    value = _marked(visible)[0] or final_value(visible)
    return None if value is None or (is_non_answer(value) and not (gold and is_non_answer(gold))) else value


def _marked(visible: str) -> tuple[str | None, int]:
    """The answer in a box or in tags, and where the box ends."""
    box, end = boxed_answer(visible)
    return (box, end) if box else (tagged_answer(visible), 0)


def _judge(question: Question, response: str, right: Callable[[str], bool]) -> Judgement:
    value = extract(response, question.answer)
    return Judgement(value, value is not None and right(value))


def _choice(question: Question, response: str, tools: Tools) -> Judgement:
    visible = scored_part(visible_text(response))
    marked, end = _marked(visible)
    letter = choice_letter(marked, question.choices, tools.grader.decide) if marked else None
    if letter is None:
        # A box that names no option does not yield to an earlier sentence, but to a later one.
        letter = final_letter(visible[end:] if marked else visible, question.choices) if end or not marked else None
    if letter is None:
        value = marked or final_value(visible)
        if value is None or is_non_answer(value) or (not marked and names_nothing(value)):
            return Judgement(None, False)
        # An answer that names no option is an answer nevertheless, and a wrong one.
        letter = choice_letter(value, question.choices, tools.grader.decide)
        if letter is None:
            return Judgement(value, False)
    return Judgement(letter, letter == question.answer.strip().upper())


def _graded(value: str, question: Question, tools: Tools) -> bool:
    return tools.grader.grade(value, question) is True


def _contained(value: str, gold: str) -> bool:
    """Whole words of the gold answer, as DynaMath's ``in`` means it: "even" for "even function", but not "e"."""
    words, wanted = (normalize(text).strip(" .").lower().split() for text in (value, gold))
    return texts_equal(value, gold) or (
        bool(words) and any(wanted[at : at + len(words)] == words for at in range(len(wanted)))
    )
