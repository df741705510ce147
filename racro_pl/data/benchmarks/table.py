"""Benchmarks that come as tables: which file holds a split, and a file's rows as questions."""

from __future__ import annotations

import abc
import difflib
import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from racro_pl.data.benchmarks.base import Benchmark, Found
from racro_pl.data.benchmarks.sources.parquet import find_shards, read_shards
from racro_pl.data.benchmarks.sources.rows import IMAGE_COLUMNS, Row, read_json_rows
from racro_pl.data.benchmarks.sources.tsv import data_folders, find_tsv, md5_of, read_tsv
from racro_pl.data.benchmarks.sources.xlsx import read_xlsx
from racro_pl.data.readers.base import Drops, RowError, first_process, keep_readable
from racro_pl.data.readers.hub_files import download, looks_like_hub_id
from racro_pl.data.readers.ids import UniqueIds
from racro_pl.terminal import get_logger
from racro_pl.types import Question, RacroError

log = get_logger(__name__)

SUFFIXES = (".tsv", ".parquet", ".arrow", ".json", ".jsonl", ".xlsx")
_IMAGES = (*IMAGE_COLUMNS, "decoded_image", "image_1")


@dataclass(frozen=True)
class Located:
    """Where a split was found."""

    split: str
    files: tuple[Path, ...]


class TableBenchmark(Benchmark):
    """A benchmark whose questions are the rows of a file: VLMEvalKit's, Hugging Face's or its authors' own."""

    needs: ClassVar[tuple[tuple[str, ...], ...]]
    """Columns that a file must have, each with the names it has in the layouts."""
    other_tsv_names: ClassVar[tuple[str, ...]] = ()
    """Further names of VLMEvalKit's file."""
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Per split, patterns of the authors' own files below their folder; the first pattern that fits counts."""
    shards: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Per split, patterns of its shards' names where they are not ``SPLIT-*.parquet``."""

    @abc.abstractmethod
    def question(self, row: Row) -> Question:
        """A row as a question.

        Raises:
            RowError: it cannot be one.
        """

    def belongs(self, row: Row, split: str) -> bool:
        """Whether a row is one of this split: some files hold several."""
        return True

    def incomplete(self, questions: Sequence[Question]) -> list[str]:
        """Groups that lack some of their questions, where the benchmark groups them."""
        return []

    def read(self, path: str | None = None, split: str | None = None, images: bool = True) -> Found:
        """As :meth:`Benchmark.read`; with ``images=False`` the questions have no images at all."""
        drops = Drops()
        located = self.locate(path, split)
        questions = self.collect(located, drops, images)
        return Found(questions, drops.counts, drops.named, located.split, located.files)

    def collect(self, located: Located, drops: Drops, images: bool = True) -> list[Question]:
        """The questions of a split that was found; rows that cannot be used go to ``drops``.

        Raises:
            RacroError: columns are missing, or different rows have one id.
        """
        rows = read_rows(located.files, drops, images)
        self._check_columns(rows, located, drops, images)
        questions: list[Question] = []
        ids = UniqueIds()
        for row in rows:
            with drops.taking(row.where):
                if not self.belongs(row, located.split):
                    continue
                question = self.question(row)
                if not question.id:
                    raise RowError("no id")
                ids.add(question.id, row.where, question)
                questions.append(question)
        ids.check()
        if images:
            return keep_readable(questions, drops)
        drops.tell_repaired()
        return questions

    def _check_columns(self, rows: Sequence[Row], located: Located, drops: Drops, images: bool) -> None:
        name = ", ".join(str(path) for path in located.files[:2]) + (", ..." if len(located.files) > 2 else "")
        if not rows:
            reasons = "; ".join(f"{reason}: {count}" for reason, count in drops.counts.items())
            raise RacroError(f"{name}: no usable row for {self.title}" + (f" ({reasons})" if reasons else ""))
        found = {column for row in rows for column in row.values}
        missing = [" or ".join(names) for names in self.needs if not found & set(names)]
        if images and not any(row.images for row in rows):
            missing.append(" or ".join(_IMAGES))
        if missing:
            raise RacroError(
                f"{name} is not a file of {self.title}: it lacks the column {'; the column '.join(missing)}. "
                f"Columns found: {', '.join(sorted(found))[:400]}"
            )

    # -------------------------------------------------------------- where the files are

    def tsv_names(self, split: str) -> tuple[str, ...]:
        """Names that VLMEvalKit's file of a split may have, without ``.tsv``."""
        own = self.splits[split].tsv
        return (own, *self.other_tsv_names) if own else ()

    def shard_names(self, split: str) -> tuple[str, ...]:
        """Patterns of the names of a split's parquet shards, in lower case."""
        return self.shards.get(split, (f"{split}-*.parquet", f"{split}.parquet"))

    def locate(self, path: str | None = None, split: str | None = None) -> Located:
        """The files of a split, without reading them (but for the checksum of VLMEvalKit's).

        Args:
            path: as in :meth:`read`.
            split: default: the one that the file's name tells, or the first that the folder holds.

        Raises:
            RacroError: there is no such split, nothing is found, or VLMEvalKit's file has another checksum.
        """
        wanted = [self.known_split(split)] if split else list(self.splits)
        if path is None:
            return self._locate_default(wanted)
        place = Path(path).expanduser()
        if place.is_file():
            return self._locate_file(place, wanted)
        if place.is_dir():
            return self._locate_below(place, wanted)
        if looks_like_hub_id(path):
            return self._locate_below(download(path, self.shard_names(wanted[0])), wanted[:1])
        raise RacroError(f"{path} is not there; give a file or folder of {self.title}, or a hub id ({self.hub_id})")

    def known_split(self, split: str) -> str:
        """The split by its name; raises :class:`RacroError` when there is none such."""
        if split in self.splits:
            return split
        near = difflib.get_close_matches(split, self.splits, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RacroError(f"{self.title} has no split {split!r}; {hint}it has {', '.join(self.splits)}")

    def _locate_default(self, wanted: Sequence[str]) -> Located:
        for split in wanted:
            path = find_tsv(self.tsv_names(split))
            if path is not None:
                self._check_md5(path, strict=True)
                return Located(split, (path,))
        names = " or ".join(f"{name}.tsv" for split in wanted for name in self.tsv_names(split))
        folders = " and ".join(str(folder) for folder in data_folders())
        raise RacroError(
            f"no file of {self.title} found: looked for {names} in {folders}. Put VLMEvalKit's file there, or give a "
            f"file, a folder or the hub id {self.hub_id}"
        )

    def _locate_file(self, path: Path, wanted: Sequence[str]) -> Located:
        if path.suffix not in SUFFIXES:
            raise RacroError(f"{path}: unknown kind of file; {self.title} is read from {', '.join(SUFFIXES)}")
        self._check_md5(path, strict=False)
        return Located(next((split for split in wanted if self._is_named_as(path, split)), wanted[0]), (path,))

    def _patterns(self, split: str) -> list[str]:
        """Of the files that may hold a split, below their folder."""
        tables = (f"{name}.tsv" for name in self.tsv_names(split))
        return [*tables, *self.files.get(split, ()), *self.shard_names(split)]

    def _is_named_as(self, path: Path, split: str) -> bool:
        names = (pattern.rpartition("/")[2].lower() for pattern in self._patterns(split))
        return any(fnmatch.fnmatch(path.name.lower(), name) for name in names)

    def _locate_below(self, folder: Path, wanted: Sequence[str]) -> Located:
        for split in wanted:
            for path in (folder / f"{name}.tsv" for name in self.tsv_names(split)):
                if path.is_file():
                    return self._locate_file(path, [split])
            for pattern in self.files.get(split, ()):
                own = sorted(folder.glob(pattern), key=_natural)
                if own:
                    return Located(split, tuple(own))
            shards = find_shards(folder, self.shard_names(split))
            if shards:
                return Located(split, tuple(sorted(shards, key=_natural)))
        names = [pattern for split in wanted for pattern in self._patterns(split)]
        there = sorted(path.name for path in folder.iterdir())[:12]
        raise RacroError(
            f"{folder} holds no layout of {self.title} that is known (split {' or '.join(wanted)}): expected "
            f"{', '.join(names)}; found {', '.join(there) or 'nothing'}. A file under another name can be given itself"
        )

    def _check_md5(self, path: Path, strict: bool) -> None:
        """Compare a file that has a name of VLMEvalKit's with the checksum listed for it.

        Args:
            path: the file.
            strict: found by its name alone, a file that differs is an error; given by its path, it may be a subset
                that its owner cut, and gets a warning.
        """
        known = {name: info.md5 for split, info in self.splits.items() for name in self.tsv_names(split)}
        expected = known.get(path.stem) if path.suffix == ".tsv" else None
        if expected is None:
            return
        got = md5_of(path)
        if got == expected:
            return
        differs = f"{path} is not VLMEvalKit's file of that name: its md5 is {got}, expected {expected}"
        if strict:
            raise RacroError(f"{differs}. Download it again, or give its path if you mean this very file")
        if first_process():
            log.warning("%s (a subset or another version); scores are not comparable with published ones", differs)


def read_rows(files: Sequence[Path], drops: Drops, images: bool) -> list[Row]:
    """The rows of files in any layout, read by what the files' names end in."""
    rows: list[Row] = []
    for path in files:
        if path.suffix == ".tsv":
            rows += read_tsv(path, drops, images)
        elif path.suffix in (".json", ".jsonl"):
            rows += read_json_rows(path, drops, images)
        elif path.suffix == ".xlsx":
            rows += read_xlsx(path, drops)
        else:
            rows += read_shards([path], drops, images)
    return rows


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key under which ``variant10`` follows ``variant9``."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", str(path))]
