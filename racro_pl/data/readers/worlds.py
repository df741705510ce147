"""The embedded worlds: questions over images that the program draws itself."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import ClassVar

from racro_pl.data.readers.base import Reader, ReadResult, Split
from racro_pl.figure_world import world as figure_world
from racro_pl.figure_world.world import CaptionAudit
from racro_pl.reckoning_world import world as reckoning_world
from racro_pl.types import Question, RacroError, require


class WorldReader(Reader):
    """Draws its questions; no file, no network.

    Args:
        train: number of training questions.
        validation: number of validation questions.
        test: number of test questions.
        seed: which world; the splits of one world share no scene.
    """

    world: ClassVar[str]
    """What it is called in errors."""
    asked_stated: ClassVar[str]
    """Name of the figure that says whether a caption states what is asked for."""

    def __init__(self, train: int = 4000, validation: int = 200, test: int = 500, seed: int = 0) -> None:
        self.counts: dict[Split, int] = {"train": train, "validation": validation, "test": test}
        self.seed = seed
        for split, count in self.counts.items():
            if count < 0:
                raise RacroError(f"the {self.world} got {split}: {count}; expected 0 or more questions")

    @abc.abstractmethod
    def draw(self, split: Split, count: int) -> list[Question]:
        """The first ``count`` questions of a split."""

    @abc.abstractmethod
    def check(self, question: Question, caption: str) -> CaptionAudit:
        """What a caption says, checked against the scene."""

    def read(self, split: Split) -> ReadResult:
        """The questions of a split; the same for the same arguments."""
        return ReadResult(self.draw(split, self.counts[split]))

    def audit_names(self) -> tuple[str, ...]:
        """Whether the asked facts are stated, and ``true_sentences``."""
        return (self.asked_stated, "true_sentences")

    def audit_caption(self, question: Question, caption: str) -> Mapping[str, float]:
        """Whether the caption states all that is asked for, truly, and the share of its sentences that are true.

        A caption without a sentence has no true ones: its share is 0.
        """
        audit = self.check(question, caption)
        return {
            self.asked_stated: float(audit.asked_stated),
            "true_sentences": audit.true_sentences / max(1, audit.sentences),
        }


class FigureWorldReader(WorldReader):
    world = "figure world"
    asked_stated = "asked_fact_stated"

    def draw(self, split: Split, count: int) -> list[Question]:
        return figure_world.figure_questions(split, count, self.seed)

    def check(self, question: Question, caption: str) -> CaptionAudit:
        return figure_world.audit_caption(question, caption)


class ReckoningWorldReader(WorldReader):
    """Draws its questions, which need several counts of an image and a little arithmetic; no file, no network.

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
        most = len(reckoning_world.ASKED)
        got = f"questions_per_picture={questions_per_picture}"
        require(1 <= questions_per_picture <= most, got, f"1 to {most}: one of each type")
        self.questions_per_picture = questions_per_picture

    def draw(self, split: Split, count: int) -> list[Question]:
        per_scene = self.questions_per_picture if split == "train" else 1
        return reckoning_world.reckoning_questions(split, count, self.seed, per_scene)

    def check(self, question: Question, caption: str) -> CaptionAudit:
        return reckoning_world.audit_caption(question, caption)
