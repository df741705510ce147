"""Questions of one's own, in the plain layout that docs/data.md describes."""

from __future__ import annotations

from dataclasses import replace

from racro_pl.data.benchmarks.base import Benchmark, Found, SplitInfo
from racro_pl.data.readers.jsonl import JsonlReader
from racro_pl.types import RacroError


class Own(Benchmark):
    """Ids are the file's own."""

    name = "own"
    title = "Own"
    splits = {"test": SplitInfo(0)}
    in_average = False

    def read(self, path: str | None = None, split: str | None = None, images: bool = True) -> Found:
        """As :meth:`Benchmark.read`; the path is a jsonl file, and images must be there in any case."""
        if path is None:
            raise RacroError("own questions need their file: own=PATH.jsonl, see docs/data.md")
        if split not in (None, "test"):
            raise RacroError(f"own questions have one split, test; got {split!r}")
        result = JsonlReader(test_path=path).read("test")
        return Found([replace(question, source=self.name) for question in result.questions], result.dropped, "test")
