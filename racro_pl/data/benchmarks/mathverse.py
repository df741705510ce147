"""MathVerse, its vision-only version: the whole problem is drawn. Zhang et al. 2024, https://mathverse-cuhk.github.io."""

from __future__ import annotations

from collections.abc import Mapping

from racro_pl.data.benchmarks.base import SplitInfo
from racro_pl.data.benchmarks.sources.rows import Row
from racro_pl.data.benchmarks.table import TableBenchmark
from racro_pl.data.readers.base import RowError
from racro_pl.data.readers.fields import typed_answer
from racro_pl.types import Question

VERSION = "Vision Only"


class MathVerse(TableBenchmark):
    """Ids are the authors' ``problem_index``, of which each version of the problems has every one once."""

    name = "mathverse"
    title = "MathVerse"
    splits = {"testmini": SplitInfo(788, "MathVerse_MINI_Vision_Only", "68a11d4680014ac881fa37adeadea3a4")}
    # Its download has this name.
    other_tsv_names = ("MathVerse_MINIVOnly",)
    hub_id = "AI4Math/MathVerse"
    breakdowns = {"subject": "category", "subfield": "subfield"}
    needs = (("problem_index", "index"), ("question", "query_wo"), ("question_type",), ("answer",))
    files = {"testmini": ("testmini.json", "data/testmini.json")}

    def belongs(self, row: Row, split: str) -> bool:
        """The authors' files hold five versions of every problem."""
        return row.text("problem_version") in ("", VERSION)

    def question(self, row: Row) -> Question:
        """A row of any layout."""
        kind = row.text("question_type")
        if kind not in ("multi-choice", "free-form"):
            raise RowError("unknown question type", repr(kind)[:40])
        # Only an instruction: VLMEvalKit calls the authors' `query_wo` of this version `question`.
        text = row.question("query_wo", "question")
        answer, answer_type = typed_answer(row.text("answer"), "", (), "choice" if kind == "multi-choice" else "math")
        details = row.fields("metadata")
        return Question(
            id=row.text("problem_index", "index"),
            images=row.images,
            text=text,
            answer=answer,
            answer_type=answer_type,
            source=self.name,
            category=row.text("subject") or str(details.get("subject") or ""),
            metadata={
                "question_type": kind,
                "question_for_eval": row.text("question_for_eval"),
                "subfield": row.text("subfield") or str(details.get("subfield") or ""),
            },
        )

    def categories(self, question: Question) -> Mapping[str, str]:
        """Those of the questions, and of their kinds of answer."""
        kind = "multiple choice" if question.answer_type == "choice" else "free form"
        return {**super().categories(question), "answer": kind}
