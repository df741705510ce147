"""Tables in ``.xlsx`` files, as VLMEvalKit writes its predictions. Needs openpyxl (extra ``xlsx``)."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from racro_pl.data.benchmarks.sources.rows import Row
from racro_pl.data.readers.base import Drops, RowError
from racro_pl.data.readers.lines import clean_row
from racro_pl.types import RacroError

MAX_UNPACKED_BYTES = 500_000_000
"""Of the file once it is unpacked; predictions of 10,000 questions take some 50 MB."""
MAX_COLUMNS = 1000


def read_xlsx(path: Path, drops: Drops) -> list[Row]:
    """The rows of a file's first sheet, named by its first row. Formulas count as the values saved with them.

    Raises:
        RacroError: openpyxl is not installed, or the file is no such file, or unpacks to more than the limit.
    """
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise RacroError(f"{path}: .xlsx files need openpyxl: pip install 'racro_pl[xlsx]'") from error
    _check_size(path)
    rows: list[Row] = []
    try:
        book = load_workbook(path, read_only=True, data_only=True)
        try:
            for number, values in enumerate(_values(path, book.worksheets[0]), start=2):
                where = f"{path.name}: row {number}"
                row, repaired = clean_row(values)
                with drops.taking(where, repaired):
                    if isinstance(row, RowError):
                        raise row
                    rows.append(Row(where, path, row))
        finally:
            book.close()
    except RacroError:
        raise
    # Of a broken file openpyxl lets through whatever its parts stumble over.
    except Exception as error:
        raise RacroError(f"{path} is no readable .xlsx file: {type(error).__name__}: {str(error)[:200]}") from error
    return rows


def _check_size(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as file:
            size = sum(entry.file_size for entry in file.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise RacroError(f"{path} is no .xlsx file: {error}") from error
    if size > MAX_UNPACKED_BYTES:
        raise RacroError(f"{path} unpacks to {size} bytes; the limit is {MAX_UNPACKED_BYTES}, use a .tsv file for more")


def _values(path: Path, sheet: Any) -> Iterator[dict[str, Any]]:
    cells = sheet.iter_rows(values_only=True, max_col=MAX_COLUMNS)
    header = [None if name is None else str(name) for name in next(cells, ())]
    if not any(header):
        raise RacroError(f"{path}: the first row of the first sheet is empty; expected the names of columns")
    for row in cells:
        named = {name: _plain(value) for name, value in zip(header, row, strict=False) if name is not None}
        if any(value is not None for value in named.values()):
            yield named


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
