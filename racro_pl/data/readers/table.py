"""The plain layout in a CSV or TSV file, and images in a folder."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from racro_pl.data.readers.base import RowError
from racro_pl.data.readers.cells import NO_UTF8, named_cells
from racro_pl.data.readers.plain import PlainFileReader, PlainRow
from racro_pl.types import RacroError

MAX_CELL_CHARACTERS = 1_000_000
"""Longest cell; images are named, not embedded, so a longer one is a mistake."""
DELIMITERS = {".csv": ",", ".tsv": "\t"}


class TableReader(PlainFileReader):
    """Reads the plain layout from ``.csv`` or ``.tsv`` files in UTF-8 whose first line names the columns.

    Several images or options stand in one cell as a list written as text: ``['a.png', 'b.png']``.
    """

    kind = "a .csv or .tsv file"

    def rows(self, path: Path) -> Iterator[PlainRow]:
        """The rows of a file.

        Raises:
            RacroError: it is no such file, or lacks a column.
        """
        if path.suffix.lower() not in DELIMITERS:
            raise RacroError(f"{path} is named neither .csv nor .tsv, so it is open how its cells are separated")
        csv.field_size_limit(MAX_CELL_CHARACTERS)
        number = 0
        try:
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                lines = csv.reader(file, delimiter=DELIMITERS[path.suffix.lower()], strict=True)
                header = self._header(path, next(iter(islice(lines, 1)), []))
                for number, cells in enumerate(lines, start=1):
                    if cells:
                        yield self._row(path, number, header, cells)
        except csv.Error as error:
            raise RacroError(f"{path} is no readable table: row {number + 1}: {error}") from error

    def _header(self, path: Path, header: list[str]) -> list[str]:
        if any(NO_UTF8.search(name) or "\0" in name for name in header):
            raise RacroError(f"{path} is no readable table: its first line is not in UTF-8")
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise RacroError(f"{path} has several columns named {', '.join(map(repr, twice))}")
        self.columns.require(str(path), header)
        return header

    def _row(self, path: Path, number: int, header: list[str], cells: list[str]) -> PlainRow:
        row: dict[str, str] | RowError
        try:
            named, repaired = named_cells(header, cells)
            row = {name: cell for name, cell in named.items() if cell.strip()}  # a blank cell holds nothing
        except RowError as error:
            row, repaired = error, False
        where, key = f"{path.name} row {number}", f"{path.stem}-{number}"
        return PlainRow(where, key, row, repaired, self.root_of(path), path.stem)
