"""VLMEvalKit's TSV files: a question a row, its images inside it as base64."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from racro_pl.data.benchmarks.sources.rows import IMAGE_COLUMNS, Row, file_images
from racro_pl.data.readers.base import MAX_IMAGES, Drops, RowError
from racro_pl.data.readers.cells import table_lines
from racro_pl.images import MAX_FILE_BYTES
from racro_pl.types import ImageRef, RacroError

MAX_CELL_CHARACTERS = MAX_FILE_BYTES * 3 // 2
"""Longest cell: one image of the largest size as base64, with some room."""
MAX_POINTER_CHARACTERS = 64
"""An image cell so short is no image but the index of the row that holds it."""
_LISTED = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)")\s*(?:,|$)""")


def data_folders() -> list[Path]:
    """Where VLMEvalKit keeps its files: ``$LMUData``, then ``~/LMUData``."""
    named = os.environ.get("LMUData")  # noqa: SIM112 - VLMEvalKit spells it so
    return [Path(folder).expanduser() for folder in (named, "~/LMUData") if folder]


def find_tsv(names: Sequence[str]) -> Path | None:
    """The first of these files (names without ``.tsv``) that VLMEvalKit's folders hold."""
    paths = (folder / f"{name}.tsv" for folder in data_folders() for name in names)
    return next((path for path in paths if path.is_file()), None)


def md5_of(path: Path) -> str:
    """MD5 of a file: what VLMEvalKit lists for its files. It tells versions apart, it protects from nothing."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def read_tsv(path: Path, drops: Drops, images: bool = True) -> list[Row]:
    """The rows of a TSV file, in order.

    An image cell holds one image, a Python list of several, or the index of another row that holds them; without
    an image cell, ``image_path`` names a file beside the TSV file, or several as a Python or JSON list.

    Raises:
        RacroError: the file is not a TSV file in UTF-8. A bad row goes to ``drops``.
    """

    def check(header: list[str]) -> None:
        if len(header) < 2:
            raise RacroError(f"{path} is not a TSV file: its first line has {len(header)} columns, expected several")
        if images and not set(IMAGE_COLUMNS) & set(header):
            raise RacroError(f"{path} lacks the column image; columns found: {', '.join(header)[:400]}")

    rows: list[Row] = []
    pointers: dict[int, str] = {}
    for number, values, repaired in table_lines(path, "\t", MAX_CELL_CHARACTERS, check):
        where = f"{path.name}: row {number}"
        with drops.taking(where, repaired):
            if isinstance(values, RowError):
                raise values
            cell = values.pop("image", "").strip()
            found: tuple[ImageRef, ...] = ()
            if images and 0 < len(cell) <= MAX_POINTER_CHARACTERS:
                pointers[len(rows)] = cell
            elif images:
                found = _decode(cell) if cell else file_images(values, path)
            rows.append(Row(where, path, values, found))
    return _follow(rows, pointers, drops)


def _follow(rows: list[Row], pointers: dict[int, str], drops: Drops) -> list[Row]:
    """Rows with the images that their image cells point to."""
    if not pointers:
        return rows
    # A pointer leads to a row with images of its own: pointers to pointers are refused.
    owners = {row.text("index"): row.images for row in rows if row.images}
    followed = []
    for place, row in enumerate(rows):
        if place not in pointers:
            followed.append(row)
        elif pointers[place] in owners:
            followed.append(Row(row.where, row.origin, row.values, owners[pointers[place]]))
        else:
            drops.add(row.where, RowError("image is that of a row that is not there", repr(pointers[place])))
    return followed


def _decode(cell: str) -> tuple[ImageRef, ...]:
    cells = _listed(cell) if cell.startswith("[") else [cell]
    if len(cells) > MAX_IMAGES:
        raise RowError(f"more than {MAX_IMAGES} images", str(len(cells)))
    try:
        return tuple(ImageRef(data=base64.b64decode(re.sub(r"\s", "", each), validate=True)) for each in cells)
    except (binascii.Error, ValueError) as error:
        raise RowError("image is not base64", str(error)) from error


def _listed(cell: str) -> list[str]:
    """The strings of a Python list of base64 strings: too long for a parser of literals, and simple enough without."""
    inside = cell[1:-1].strip() if cell.endswith("]") else ""
    found, place = [], 0
    while place < len(inside):
        match = _LISTED.match(inside, place)
        if match is None:
            break
        found.append(match[1] or match[2] or "")
        place = match.end()
    if not found or place < len(inside):
        raise RowError("image is neither base64 nor a list of it", f"{cell[:40]!r}")
    return found
