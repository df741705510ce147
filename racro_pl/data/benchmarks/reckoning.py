"""The reckoning world, which the program draws itself: captions through reasoners of different strength."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from racro_pl.data.benchmarks.base import Benchmark, Found, SplitInfo
from racro_pl.data.readers.reckoning import ReckoningWorldReader
from racro_pl.types import Question, RacroError


class Reckoning(Benchmark):
    """Ids are the reckoning world's own (``test-0-17``: split, seed, place)."""

    name = "reckoning"
    title = "Reckoning"
    splits = {"test": SplitInfo(500)}
    in_average = False

    def read(self, path: str | None = None, split: str | None = None, images: bool = True) -> Found:
        """As :meth:`Benchmark.read`; there is nothing to give a path of."""
        if path is not None:
            raise RacroError(f"the reckoning world draws its questions itself; it got the path {path}, give none")
        if split not in (None, "test"):
            raise RacroError(f"the reckoning world has no split {split!r} to be tested on; it has test")
        drawn = ReckoningWorldReader(test=self.expected("test")).read("test").questions
        questions = [replace(each, source=self.name, images=each.images if images else ()) for each in drawn]
        return Found(questions, split="test")

    def categories(self, question: Question) -> Mapping[str, str]:
        """What is asked for: the larger count, a sum, a difference, or a sum less a third count."""
        return {"asked": question.category}
