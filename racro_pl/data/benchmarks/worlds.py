"""The worlds that the program draws itself: for trying things out, and for tests without a network."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from racro_pl.data.benchmarks.base import Benchmark, Found, SplitInfo
from racro_pl.data.readers.worlds import FigureWorldReader, ReckoningWorldReader, WorldReader
from racro_pl.types import RacroError


class WorldBenchmark(Benchmark):
    """Ids are the world's own (``test-0-17``: split, seed, place); answers are words."""

    splits = {"test": SplitInfo(500)}
    in_average = False
    breakdowns = {"asked": "category"}
    reader: ClassVar[type[WorldReader]]

    def read(self, path: str | None = None, split: str | None = None, images: bool = True) -> Found:
        """As :meth:`Benchmark.read`; there is nothing to give a path of."""
        world = self.reader.world
        if path is not None:
            raise RacroError(f"the {world} draws its questions itself; it got the path {path}, give none")
        if split not in (None, "test"):
            raise RacroError(f"the {world} has no split {split!r} to be tested on; it has test")
        drawn = self.reader(test=self.splits["test"].questions).read("test").questions
        return Found([replace(each, source=self.name, images=each.images if images else ()) for each in drawn],
                     split="test")  # fmt: skip


class Figures(WorldBenchmark):
    """Asked for: a colour, a fill, a count or a shade."""

    name = "figures"
    title = "Figures"
    reader = FigureWorldReader


class Reckoning(WorldBenchmark):
    """Asked for: the larger count, a sum, a difference, or a sum less a third count."""

    name = "reckoning"
    title = "Reckoning"
    reader = ReckoningWorldReader
