"""DynaMath: every seed question in ten variants. Zou et al. 2025, https://dynamath.github.io."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from racro_pl.data.benchmarks.base import SplitInfo
from racro_pl.data.benchmarks.sources.rows import ROW_KEY, Row
from racro_pl.data.benchmarks.table import TableBenchmark
from racro_pl.data.readers.base import RowError
from racro_pl.data.readers.fields import typed_answer
from racro_pl.types import AnswerType, Question

VARIANTS = 10
"""Of every seed question."""
_TYPES: dict[str, AnswerType] = {"float": "math", "multiple choice": "choice", "text": "text"}
_VARIANT = re.compile(r"variant_?(\d+)")


class DynaMath(TableBenchmark):
    """Ids are ``seed-variant``, both from 1."""

    name = "dynamath"
    title = "DynaMath"
    splits = {"test": SplitInfo(5010, "DynaMath", "b8425ad9a7114571fc9366e013699494")}
    hub_id = "DynaMath/DynaMath_Sample"
    breakdowns = {"subject": "category", "level": "level", "answer": "answer_type"}
    needs = (("qid", "id", ROW_KEY), ("question",), ("answer", "ground_truth"), ("answer_type",))
    files = {"test": ("variant*/dataset.json", "*/variant*/dataset.json")}
    shards = {"test": ("sample_variant*.parquet",)}

    def question(self, row: Row) -> Question:
        """A row of any layout."""
        text = row.question("question")
        kind = row.text("answer_type")
        if kind not in _TYPES:
            raise RowError("unknown answer type", f"{kind!r:.40}; expected one of {', '.join(_TYPES)}")
        answer, answer_type = typed_answer(row.text("answer", "ground_truth"), "", (), _TYPES[kind])
        seed, variant = _seed(row), _variant(row)
        return Question(
            id=f"{seed}-{variant}",
            images=row.images,
            text=text,
            answer=answer,
            answer_type=answer_type,
            source=self.name,
            category=row.text("subject"),
            metadata={
                "answer_type": kind,
                "seed": seed,
                "variant": variant,
                "level": row.text("knowledge_level", "level"),
            },
        )

    def group(self, question: Question) -> str:
        """The seed question."""
        return str(question.metadata["seed"])

    def incomplete(self, questions: Sequence[Question]) -> list[str]:
        """Seed questions that lack variants."""
        counts = Counter(self.group(question) for question in questions)
        return [seed for seed, count in counts.items() if count < VARIANTS]


def _seed(row: Row) -> int:
    """Number of the seed question. VLMEvalKit counts from 0, the authors from 1."""
    text = row.text("qid", "id", ROW_KEY)
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise RowError("no number of the seed question", repr(text)[:40])
    return int(text) + (1 if row.text("qid") else 0)


def _variant(row: Row) -> int:
    """Number of the variant: a column of VLMEvalKit's; the name of the authors' folder or of the shard."""
    stated = row.text("varid")
    if stated.isascii() and stated.isdecimal() and len(stated) <= 9:
        return int(stated)
    named = _VARIANT.search(row.origin.name) or _VARIANT.search(row.origin.parent.name)
    if stated or named is None:
        raise RowError(
            "no number of the variant", f"varid {stated!r:.30}, file {row.origin.parent.name}/{row.origin.name}"
        )
    return int(named[1])
