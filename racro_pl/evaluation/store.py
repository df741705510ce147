"""Append-only records on disk: what a killed evaluation has done already, it need not do again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from racro_pl.files import private
from racro_pl.text.printable import json_line
from racro_pl.types import RacroError

SYNC_EVERY = 32
"""Records after which the file is forced to the disk; a crash of the machine costs at most as many."""

Key = tuple[Any, ...]


class Store:
    """Records of one kind, one JSON object a line, found again by some of their fields.

    Every rank appends to a file of its own and reads those of all. A line that a crash cut off is dropped. Of two
    records of one key the first counts.

    Args:
        folder: where the files are.
        kind: their name: ``captions`` gives ``captions.jsonl``, on further ranks ``captions-rank1.jsonl``.
        key_fields: the fields that name a record.
        rank: whose file to append to.
    """

    def __init__(self, folder: Path, kind: str, key_fields: tuple[str, ...], rank: int = 0) -> None:
        self.path = folder / (f"{kind}.jsonl" if rank == 0 else f"{kind}-rank{rank}.jsonl")
        self.key_fields = key_fields
        self._records: dict[Key, dict[str, Any]] = {}
        self._file: IO[bytes] | None = None
        self._unsynced = 0
        cut_torn_line(self.path)  # now, not at the first append: a file that lacks nothing else must be whole as well
        for path in [folder / f"{kind}.jsonl", *sorted(folder.glob(f"{kind}-rank*.jsonl"))]:
            if path.is_file():
                for record in read_records(path):
                    self._records.setdefault(self._key(record, path), record)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: Key) -> bool:
        return key in self._records

    def get(self, key: Key) -> dict[str, Any] | None:
        """The record of a key; None where there is none yet."""
        return self._records.get(key)

    def items(self) -> Iterable[tuple[Key, dict[str, Any]]]:
        """All records by their keys, in the files' order."""
        return self._records.items()

    def append(self, record: dict[str, Any]) -> None:
        """Write a record; it is in the operating system's hands when this returns, on the disk a little later."""
        key = self._key(record, self.path)
        if key in self._records:
            raise ValueError(f"{self.path.name} has a record {key} already")
        if self._file is None:
            self._file = open(self.path, "ab", opener=private)  # noqa: SIM115 (closed by close)
        self._file.write(json_line(record).encode() + b"\n")
        self._file.flush()
        self._records[key] = record
        self._unsynced += 1
        if self._unsynced >= SYNC_EVERY:
            self._sync()

    def close(self) -> None:
        """Force everything to the disk."""
        if self._file is not None:
            self._sync()
            self._file.close()
            self._file = None

    def _sync(self) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def _key(self, record: dict[str, Any], path: Path) -> Key:
        try:
            return tuple(record[name] for name in self.key_fields)
        except KeyError as error:
            raise RacroError(
                f"{path} holds a record without {error}: it is not of this kind of evaluation; move it away"
            ) from None


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The complete records of a file; a last line without its end is not one.

    Raises:
        RacroError: a complete line is not a JSON object.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError as error:
                raise RacroError(f"{path}:{number} is not JSON ({error}); repair or remove that line") from error
            if not isinstance(record, dict):
                raise RacroError(f"{path}:{number} is not a JSON object; repair or remove that line")
            yield record


def cut_torn_line(path: Path) -> None:
    """Remove the part of a line that a crash left at the end of a file."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            step = min(4096, end)
            file.seek(end - step)
            found = file.read(step).rfind(b"\n")
            if found >= 0:
                end = end - step + found + 1
                break
            end -= step
        if end != size:
            file.truncate(end)
