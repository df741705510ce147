"""Questions of one's own, in the plain layout that docs/data.md describes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from racro_pl.data.benchmarks.base import Benchmark, Found, SplitInfo
from racro_pl.data.readers.base import ReadResult, Split
from racro_pl.data.readers.hub import HubReader
from racro_pl.data.readers.hub_files import looks_like_hub_id
from racro_pl.data.readers.jsonl import JsonlReader
from racro_pl.data.readers.plain import PlainReader
from racro_pl.data.readers.table import DELIMITERS, TableReader
from racro_pl.types import RacroError

PARTS: dict[Split, tuple[str, ...]] = {
    "test": ("test",),
    "validation": ("validation", "valid", "val", "dev"),
    "train": ("train",),
}
"""What data sets call the part of each split."""


class Own(Benchmark):
    """Ids are the file's own."""

    name = "own"
    title = "Own"
    splits = {split: SplitInfo(0) for split in PARTS}
    in_average = False

    def read(self, path: str | None = None, split: str | None = None, images: bool = True) -> Found:
        """As :meth:`Benchmark.read`; with ``images=False`` the image files need not be there.

        The path is a ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet`` file, which is ``test``, or a folder or hub id with
        parquet or arrow files. Of these, default is the only part, else ``test``.
        """
        if path is None:
            raise RacroError("own questions need their file: own=PATH, see docs/data.md")
        if split is not None and split not in PARTS:
            raise RacroError(f"own questions have the splits {', '.join(PARTS)}; got {split!r}")
        if _is_data_set(path):
            result, split, files = _read_part(path, split, images)
        elif split in (None, "test"):
            result, split, files = _file_reader(path).read("test", images), "test", [Path(path)]
        else:
            raise RacroError(f"{path} is one file of own questions, whose only split is test; got {split!r}")
        questions = [replace(question, source=self.name) for question in result.questions]
        return Found(questions, result.dropped, result.named, split, tuple(files))


def _is_data_set(path: str) -> bool:
    if Path(path).exists() or Path(path).suffix.lower() in (*DELIMITERS, ".parquet", ".arrow"):
        return Path(path).is_dir()
    return looks_like_hub_id(path)


def _file_reader(path: str) -> PlainReader:
    suffix = Path(path).suffix.lower()
    if suffix in DELIMITERS:
        return TableReader(test_path=path)
    if suffix in (".parquet", ".arrow"):
        return HubReader(path, train=None, test="test")
    return JsonlReader(test_path=path)


def _read_part(path: str, asked: str | None, images: bool) -> tuple[ReadResult, Split, list[Path]]:
    """A part of a folder or hub id, which split it is, and its files.

    Raises:
        RacroError: there is no such part, or several of which none was asked for.
    """
    names = HubReader(path).parts()
    if not names:
        raise RacroError(f"{path} has no parquet or arrow files; give a folder with some, or one .jsonl, .csv or .tsv")
    # Of several names for a split, the first counts.
    there = {split: name for split, known in PARTS.items() for name in reversed(known) if name in names}
    wanted = asked or (next(iter(there)) if len(there) == 1 else "test")
    for split, name in there.items():
        if split == wanted:
            # To the reader it is the test part whatever its name: all of it is wanted, and nothing is held out.
            reader = HubReader(path, train=None, test=name)
            return reader.read("test", images), split, reader.files(name)
    raise RacroError(f"{path} has no part {wanted}; it has {', '.join(there)}: name one of these as split")
