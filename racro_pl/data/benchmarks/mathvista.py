"""MathVista: mathematics in pictures of all kinds. Lu et al. 2024, https://mathvista.github.io."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from racro_pl.data.benchmarks.base import SplitInfo
from racro_pl.data.benchmarks.sources.rows import Row
from racro_pl.data.benchmarks.table import TableBenchmark
from racro_pl.data.readers.base import RowError
from racro_pl.data.readers.fields import read_options, typed_answer
from racro_pl.text.choices import LETTERS, choice_letter
from racro_pl.types import AnswerType, Question

_DECIMALS = {1: ("one decimal place", "1.2, 1.3, 1.4"), 2: ("two decimal places", "1.23, 1.34, 1.45")}
_TYPES = {"text", "integer", "float", "list"}


class MathVista(TableBenchmark):
    """Ids are the authors' ``pid``; of VLMEvalKit's file, its index."""

    name = "mathvista"
    title = "MathVista"
    splits = {"testmini": SplitInfo(1000, "MathVista_MINI", "f199b98e178e5a2a20e7048f5dcb0464")}
    hub_id = "AI4Math/MathVista"
    breakdowns = {"task": "category"}
    needs = (("pid", "index", "id"), ("question", "query"), ("question_type",), ("answer_type",), ("answer",))
    files = {"testmini": ("testmini.json", "data/testmini.json")}

    def question(self, row: Row) -> Question:
        """A row of any layout."""
        kind, answer_type = row.text("question_type"), row.text("answer_type")
        if kind not in ("multi_choice", "free_form") or answer_type not in _TYPES:
            raise RowError("unknown question type", f"{kind!r:.30} with answer type {answer_type!r:.30}")
        raw = row.text("answer")
        choices: tuple[str, ...] = ()
        graded: AnswerType = "text" if answer_type == "text" else "math"
        if kind == "multi_choice":
            choices, graded = read_options(row.items("choices")), "choice"
            answer = _letter(row, raw, choices)
            raw = raw if raw in choices else choices[LETTERS.index(answer)]
        else:
            answer, graded = typed_answer(raw, "", (), graded)
        text = _text(row, choices)
        details = row.fields("metadata")
        return Question(
            id=row.text("pid", "index", "id"),
            images=row.images,
            text=text,
            answer=answer,
            answer_type=graded,
            choices=choices,
            source=self.name,
            category=row.text("task") or str(details.get("task") or ""),
            metadata={
                "question_type": kind,
                "answer_type": answer_type,
                "precision": _precision(row, text),
                "unit": row.text("unit") or None,
                "answer_raw": raw,
                "skills": tuple(str(skill) for skill in row.items("skills") or details.get("skills") or ()),
            },
        )

    def categories(self, question: Question) -> Mapping[str, str]:
        """Task, and the kind of question and answer."""
        kind = "multiple choice" if question.answer_type == "choice" else question.metadata["answer_type"]
        return {**super().categories(question), "answer": kind}


def _letter(row: Row, raw: str, choices: Sequence[str]) -> str:
    """The gold option's letter: VLMEvalKit has it in a column; the authors give the option's text."""
    letter = row.text("answer_option")
    if not letter:
        # The text itself first: an option may read "B" and be the first.
        letter = LETTERS[choices.index(raw)] if raw in choices else choice_letter(raw, choices) or ""
    if len(letter) != 1 or letter not in LETTERS[: len(choices)]:
        raise RowError("answer names no option", repr(raw)[:80])
    return letter


def _precision(row: Row, text: str) -> float | None:
    """Decimals of a float answer; VLMEvalKit's file has them only in the hint."""
    if row.text("answer_type") != "float":
        return None
    stated = row.text("precision")
    try:
        return (
            float(stated) if stated else next((float(n) for n, (words, _) in _DECIMALS.items() if words in text), None)
        )
    except ValueError as error:
        raise RowError("precision is no number", repr(stated)[:40]) from error


def _text(row: Row, choices: Sequence[str]) -> str:
    """The authors' ``query``: hint, question, choices. Built from the row's parts where it is not there."""
    question = row.question("query", "question")
    if re.search(r"^Question:", question, re.MULTILINE):
        return question
    unit = row.text("unit")
    lines = [f"Question: {question}" + (f" (Unit: {unit})" if unit else "")]
    if choices:
        lines += ["Choices:", *(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))]
    hint = _hint(row)
    return "\n".join([f"Hint: {hint}", *lines] if hint else lines)


def _hint(row: Row) -> str:
    """What the benchmark asks to end the answer with."""
    kind, precision = row.text("answer_type"), row.text("precision")
    if row.text("question_type") == "multi_choice":
        return "Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."
    if kind == "list":
        return (
            "Please answer the question requiring a Python list as an answer and provide the final list, "
            "e.g., [1, 2, 3], [1.2, 1.3, 1.4], at the end."
        )
    if kind == "integer":
        wanted, examples = "an integer answer", "1, 2, 3"
    elif kind == "float" and precision and float(precision) in _DECIMALS:
        words, examples = _DECIMALS[int(float(precision))]
        wanted = f"a floating-point number with {words}"
    else:
        return ""
    return f"Please answer the question requiring {wanted} and provide the final value, e.g., {examples}, at the end."
