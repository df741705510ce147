"""Questions of one's own, in the plain layout that docs/data.md describes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from racro_pl.data.benchmarks.base import Benchmark, Found, SplitInfo
from racro_pl.data.readers.hub import HubReader
from racro_pl.data.readers.hub_files import looks_like_hub_id
from racro_pl.data.readers.jsonl import JsonlReader
from racro_pl.data.readers.plain import PlainReader
from racro_pl.data.readers.table import DELIMITERS, TableReader
from racro_pl.types import RacroError


class Own(Benchmark):
    """Ids are the file's own."""

    name = "own"
    title = "Own"
    splits = {"test": SplitInfo(0)}
    in_average = False

    def read(self, path: str | None = None, split: str | None = None, images: bool = True) -> Found:
        """As :meth:`Benchmark.read`; with ``images=False`` the image files need not be there.

        The path is a ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet`` file, or a folder or hub id with parquet or arrow
        files of a part ``test``.
        """
        if path is None:
            raise RacroError("own questions need their file: own=PATH, see docs/data.md")
        if split not in (None, "test"):
            raise RacroError(f"own questions have one split, test; got {split!r}")
        result = _reader(path).read("test", images)
        return Found([replace(question, source=self.name) for question in result.questions], result.dropped, "test")


def _reader(path: str) -> PlainReader:
    suffix = Path(path).suffix.lower()
    if suffix in DELIMITERS:
        return TableReader(test_path=path)
    if suffix in (".parquet", ".arrow") or Path(path).is_dir() or (not Path(path).exists() and looks_like_hub_id(path)):
        return HubReader(path, train=None, test="test")
    return JsonlReader(test_path=path)
