"""The embedded reckoning world: questions that need several counts of a drawn image, and a little arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

from racro_pl.data.readers.base import Reader, ReadResult, Split
from racro_pl.reckoning_world.world import audit_caption, reckoning_questions
from racro_pl.types import Question, RacroError


class ReckoningWorldReader(Reader):
    """Draws its questions; no file, no network.

    Args:
        train: number of training questions.
        validation: number of validation questions.
        test: number of test questions.
        seed: which world; the splits of one world share no scene.
    """

    def __init__(self, train: int = 4000, validation: int = 200, test: int = 500, seed: int = 0) -> None:
        self.counts: dict[Split, int] = {"train": train, "validation": validation, "test": test}
        self.seed = seed
        for split, count in self.counts.items():
            if count < 0:
                raise RacroError(f"the reckoning world got {split}: {count}; expected 0 or more questions")

    def read(self, split: Split) -> ReadResult:
        """The questions of a split; the same for the same arguments."""
        return ReadResult(reckoning_questions(split, self.counts[split], self.seed))

    def audit_names(self) -> tuple[str, ...]:
        """``asked_counts_stated`` and ``true_sentences``."""
        return ("asked_counts_stated", "true_sentences")

    def audit_caption(self, question: Question, caption: str) -> Mapping[str, float]:
        """Whether the caption states every count that is needed, truly, and the share of its sentences that are true.

        A caption without a sentence has no true ones: its share is 0.
        """
        audit = audit_caption(question, caption)
        return {
            "asked_counts_stated": float(audit.asked_stated),
            "true_sentences": audit.true_sentences / max(1, audit.sentences),
        }
