"""MMMU: college questions of thirty subjects. Yue et al. 2024, https://mmmu-benchmark.github.io."""

from __future__ import annotations

import re

from racro_pl.data.benchmarks.base import SplitInfo
from racro_pl.data.benchmarks.prompts import multiple_choice_text
from racro_pl.data.benchmarks.sources.rows import Row
from racro_pl.data.benchmarks.table import TableBenchmark
from racro_pl.data.readers.base import RowError
from racro_pl.data.readers.fields import plain_text, read_literal, typed_answer
from racro_pl.text.choices import LETTERS
from racro_pl.types import Question

_TSV, _MD5 = "MMMU_DEV_VAL", "585e8ad75e73f75dcad265dfd0417d64"
_SUBJECT = re.compile(r"(?:dev|validation|test)_(.+)_\d+")


class MMMU(TableBenchmark):
    """Ids are the authors' (``validation_Accounting_1``); of VLMEvalKit's file, its index unless it has them too."""

    # The validation split is what is reported: the test split's answers are not public.
    name = "mmmu"
    title = "MMMU"
    splits = {"validation": SplitInfo(900, _TSV, _MD5), "dev": SplitInfo(150, _TSV, _MD5)}
    hub_id = "MMMU/MMMU"
    breakdowns = {"subject": "category", "discipline": "discipline", "difficulty": "difficulty"}
    needs = (("id", "index"), ("question",), ("answer",), ("options", "A"))

    def belongs(self, row: Row, split: str) -> bool:
        """VLMEvalKit's file holds both splits."""
        return row.text("split") in ("", split)

    def question(self, row: Row) -> Question:
        """A row of any layout."""
        question = row.text("question")
        if not question:
            raise RowError("no question")
        options = lettered_options(row) or tuple(str(plain_text(option) or "") for option in row.items("options"))
        answers = (row.text("answer"),) if options else _answers(row)
        answer, answer_type = typed_answer(
            answers[0] if answers else None, "", options, "choice" if options else "math"
        )
        key = row.text("id", "index")
        subject = _SUBJECT.fullmatch(row.text("id"))
        return Question(
            id=key,
            images=row.images,
            # The reference asks for the letter in English here, whatever the question's language.
            text=multiple_choice_text(question, options, row.text("hint"), chinese=False),
            answer=answer,
            answer_type=answer_type,
            choices=options,
            source=self.name,
            category=row.text("category") or (subject[1].replace("_", " ") if subject else ""),
            metadata={
                "answers": (answer,) if options else answers,
                "discipline": row.text("l2-category"),
                "difficulty": row.text("topic_difficulty"),
            },
        )


def lettered_options(row: Row) -> tuple[str, ...]:
    """Options that have a column each, ``A``, ``B``, ...: those before the first empty one.

    Raises:
        RowError: there is one after an empty one, whose letter would move.
    """
    cells = [row.text(letter) for letter in LETTERS if letter in row.values]
    options = [cell for cell in cells if cell]
    if cells[: len(options)] != options:
        raise RowError("options cannot be read", f"an empty one stands between {options!r:.60}")
    return tuple(options)


def _answers(row: Row) -> tuple[str, ...]:
    """The answers that an open question accepts: one, or a list of them written as text."""
    text = row.text("answer")
    if not (text.startswith("[") and text.endswith("]")):
        return (text,) if text else ()
    try:
        listed = read_literal(text)
    except RowError:
        return (text,)  # such as [x, y]: an answer, not a list of answers
    return tuple(answer for answer in map(plain_text, listed if isinstance(listed, list) else [text]) if answer)
