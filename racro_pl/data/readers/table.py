"""The plain layout in a CSV or TSV file, and images in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from racro_pl.data.readers.base import RowError
from racro_pl.data.readers.cells import table_lines
from racro_pl.data.readers.lines import Line
from racro_pl.data.readers.plain import PlainFileReader
from racro_pl.types import RacroError

MAX_CELL_CHARACTERS = 1_000_000
"""Longest cell; images are named, not embedded, so a longer one is a mistake."""
DELIMITERS = {".csv": ",", ".tsv": "\t"}


class TableReader(PlainFileReader):
    """Reads the plain layout from ``.csv`` or ``.tsv`` files in UTF-8 whose first line names the columns.

    Several images or options stand in one cell as a list written as text: ``['a.png', 'b.png']``.
    """

    kind = "a .csv or .tsv file"
    mark = " row "

    def lines(self, path: Path) -> Iterator[Line]:
        """The rows of a file.

        Raises:
            RacroError: it is no such file, or lacks a column.
        """
        delimiter = DELIMITERS.get(path.suffix.lower())
        if delimiter is None:
            raise RacroError(f"{path} is named neither .csv nor .tsv, so it is open how its cells are separated")

        def check(header: list[str]) -> None:
            twice = sorted({name for name in header if header.count(name) > 1})
            if twice:
                raise RacroError(f"{path} has several columns named {', '.join(map(repr, twice))}")
            self.columns.require(str(path), header)

        for number, row, repaired in table_lines(path, delimiter, MAX_CELL_CHARACTERS, check, strict=True):
            # A blank cell holds nothing.
            filled = row if isinstance(row, RowError) else {name: cell for name, cell in row.items() if cell.strip()}
            yield Line(number, filled, repaired)
