"""Rows of CSV and TSV files, read within bounds."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from racro_pl.data.readers.base import RowError
from racro_pl.data.readers.lines import Line
from racro_pl.text.cleaning import clean
from racro_pl.types import RacroError

_NO_UTF8 = re.compile("[\udc80-\udcff]")
"""What bytes that are no UTF-8 become with ``errors="surrogateescape"``: their row is left out, the others are read."""


def table_lines(
    path: Path, delimiter: str, max_characters: int, check: Callable[[list[str]], None], *, strict: bool = False
) -> Iterator[Line]:
    """The rows that are not blank of a file in UTF-8 whose first line names the columns, numbered from 1.

    ``max_characters`` is the length of the longest cell; ``check`` raises where the names of the columns will not do;
    ``strict`` refuses odd quotes.

    Raises:
        RacroError: it is no such file. A row with too few or too many cells, or bytes that are no UTF-8, is a RowError.
    """
    csv.field_size_limit(max_characters)
    number = 0
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            lines = csv.reader(file, delimiter=delimiter, strict=strict)
            header = next(lines, [])
            if any(_NO_UTF8.search(name) or "\0" in name for name in header):
                raise RacroError(f"{path} is no readable table: its first line is not in UTF-8")
            check(header)
            for number, cells in enumerate(lines, start=1):
                if cells:
                    yield _named(number, header, cells)
    except csv.Error as error:
        raise RacroError(f"{path} is no readable table: row {number + 1}: {error}") from error


def _named(number: int, header: Sequence[str], cells: Sequence[str]) -> Line:
    if len(cells) != len(header):
        error = RowError("wrong number of cells", f"got {len(cells)}, the header has {len(header)}")
        return Line(number, error, False)
    row = dict(zip(header, cells, strict=True))
    for name, cell in row.items():
        if not cell.isascii() and _NO_UTF8.search(cell):
            return Line(number, RowError("not UTF-8", f"column {name!r:.40}: {cell!r:.60}"), False)
    cleaned = clean(row)
    return Line(number, cleaned, cleaned is not row)
