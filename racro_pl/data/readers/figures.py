"""The embedded figure world: questions over drawn figures, made by the program itself."""

from __future__ import annotations

from racro_pl.data.readers.base import Split
from racro_pl.data.readers.world import WorldReader
from racro_pl.figure_world.world import CaptionAudit, audit_caption, figure_questions
from racro_pl.types import Question


class FigureWorldReader(WorldReader):
    world = "figure world"
    asked_stated = "asked_fact_stated"

    def draw(self, split: Split, count: int) -> list[Question]:
        return figure_questions(split, count, self.seed)

    def check(self, question: Question, caption: str) -> CaptionAudit:
        return audit_caption(question, caption)
