"""The embedded reckoning world: questions that need several counts of a drawn image, and a little arithmetic."""

from __future__ import annotations

from racro_pl.data.readers.base import Split
from racro_pl.data.readers.world import WorldReader
from racro_pl.figure_world.world import CaptionAudit
from racro_pl.reckoning_world.world import ASKED, audit_caption, reckoning_questions
from racro_pl.types import Question, require


class ReckoningWorldReader(WorldReader):
    """Draws its questions; no file, no network.

    Args:
        train: number of training questions.
        validation: number of validation questions.
        test: number of test questions.
        seed: which world; the splits of one world share no scene.
        questions_per_picture: how many training questions are about one picture, 1 to 4.
    """

    world = "reckoning world"
    asked_stated = "asked_counts_stated"

    def __init__(
        self, train: int = 4000, validation: int = 200, test: int = 500, seed: int = 0, questions_per_picture: int = 1
    ) -> None:
        super().__init__(train, validation, test, seed)
        require(
            1 <= questions_per_picture <= len(ASKED),
            f"questions_per_picture={questions_per_picture}",
            f"1 to {len(ASKED)}: one of each type",
        )
        self.questions_per_picture = questions_per_picture

    def draw(self, split: Split, count: int) -> list[Question]:
        return reckoning_questions(split, count, self.seed, self.questions_per_picture if split == "train" else 1)

    def check(self, question: Question, caption: str) -> CaptionAudit:
        return audit_caption(question, caption)
