"""The embedded reckoning world: questions that need several counts of a drawn image, and a little arithmetic."""

from __future__ import annotations

from racro_pl.data.readers.base import Split
from racro_pl.data.readers.world import WorldReader
from racro_pl.figure_world.world import CaptionAudit
from racro_pl.reckoning_world.world import audit_caption, reckoning_questions
from racro_pl.types import Question


class ReckoningWorldReader(WorldReader):
    world = "reckoning world"
    asked_stated = "asked_counts_stated"

    def draw(self, split: Split, count: int) -> list[Question]:
        return reckoning_questions(split, count, self.seed)

    def check(self, question: Question, caption: str) -> CaptionAudit:
        return audit_caption(question, caption)
