"""LogicVista: visual logic puzzles. Xiao et al. 2024, https://github.com/Yijia-Xiao/LogicVista."""

from __future__ import annotations

import re

from racro_pl.data.benchmarks.base import SplitInfo
from racro_pl.data.benchmarks.sources.rows import ROW_KEY, Row
from racro_pl.data.benchmarks.table import TableBenchmark
from racro_pl.data.readers.base import RowError
from racro_pl.types import Question

_LETTERS = re.compile(r"[A-I]([\s,;]*[A-I])*")


class LogicVista(TableBenchmark):
    """Ids are the authors' keys (``v1_0``); of VLMEvalKit's file, its index."""

    name = "logicvista"
    title = "LogicVista"
    splits = {"test": SplitInfo(447, "LogicVista", "41c5d33adf33765c399e0e6ae588c061")}
    hub_id = "lscpku/LogicVista"
    breakdowns = {"skill": "category"}
    needs = (("id", "index", "imagename", ROW_KEY), ("question",), ("answer",))
    files = {"test": ("dataset.json", "data/dataset.json")}

    def question(self, row: Row) -> Question:
        """A row of any layout; its options stand inside the text."""
        text = row.question("question")
        answer = row.text("answer").upper()
        if not _LETTERS.fullmatch(answer):
            raise RowError(
                "answer is neither a letter nor letters", f"{row.text('answer')!r:.40}; expected 'C' or 'A, C'"
            )
        letters = re.findall("[A-I]", answer)
        skill = row.text("skill")
        skills = tuple(map(str, row.items("skill"))) if skill.startswith("[") or not skill else (skill,)
        return Question(
            id=row.text(ROW_KEY, "id", "index") or row.text("imagename").rpartition(".")[0],
            images=row.images,
            text=text,
            answer=", ".join(letters),
            answer_type="choice" if len(letters) == 1 else "text",
            source=self.name,
            category=", ".join(skills),
            metadata={"skills": skills},
        )
