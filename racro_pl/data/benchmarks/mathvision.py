"""MathVision (MATH-V): competition mathematics with a drawing. Wang et al. 2024, https://github.com/mathllm/MATH-V."""

from __future__ import annotations

from racro_pl.data.benchmarks.base import SplitInfo
from racro_pl.data.benchmarks.sources.rows import Row
from racro_pl.data.benchmarks.table import TableBenchmark
from racro_pl.data.readers.fields import read_options, typed_answer
from racro_pl.text.choices import with_choices
from racro_pl.types import Question


class MathVision(TableBenchmark):
    """Ids are those of MATH-V, which VLMEvalKit keeps as its index."""

    name = "mathvision"
    title = "MathVision"
    splits = {
        "test": SplitInfo(3040, "MathVision", "93f6de14f7916e598aa1b7165589831e"),
        "testmini": SplitInfo(304, "MathVision_MINI", "060fe4fa5d868987ce179307bd5f8a33"),
    }
    hub_id = "MathLLMs/MathVision"
    breakdowns = {"subject": "category", "level": "level"}
    needs = (("id", "index"), ("question",), ("options", "choices"), ("answer",))
    files = {
        "test": ("test.jsonl", "data/test.jsonl"),
        "testmini": ("testmini.jsonl", "data/testmini.jsonl"),
    }

    def question(self, row: Row) -> Question:
        """A row of any layout."""
        text = row.question("question")
        choices = read_options(row.items("options") or row.items("choices"))
        answer, answer_type = typed_answer(row.text("answer"), text, choices, "choice" if choices else "math")
        return Question(
            id=row.text("id", "index"),
            images=row.images,
            # No layout writes the options into the question, and no one can answer by letter without them.
            text=with_choices(text, choices),
            answer=answer,
            answer_type=answer_type,
            choices=choices,
            source=self.name,
            category=row.text("subject", "category"),
            metadata={"level": row.text("level")},
        )
