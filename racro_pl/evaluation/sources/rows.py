"""Rows, as every source hands them to a benchmark; and the authors' own JSON files as rows."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from racro_pl.data.readers.base import Drops, RowError
from racro_pl.data.readers.fields import image_refs, plain_text
from racro_pl.types import ImageRef, RacroError

MAX_JSON_BYTES = 200_000_000
"""Largest ``.json`` file that is parsed: it is parsed as a whole."""
MAX_LINE_BYTES = 16_000_000
"""Longest line of a ``.jsonl`` file that is parsed: a file of model outputs, which may serve as questions, has some."""
MAX_LITERAL_CHARACTERS = 20_000
"""Longest Python list written as text that is parsed."""
ROW_KEY = "row key"
"""Column that holds a row's key where the file is one big object of rows by key."""
IMAGE_COLUMNS = ("image", "images", "image_path", "imagename")
"""Columns that name image files; of several, the first that is there counts."""


@dataclass(frozen=True)
class Row:
    """One row of a benchmark's file, whatever the file's layout."""

    where: str
    """For messages: ``testmini.jsonl:17``."""
    origin: Path
    """The file that holds the row."""
    values: Mapping[str, Any]
    images: tuple[ImageRef, ...] = ()
    """Empty when the reader was told to leave images alone."""

    def text(self, *columns: str) -> str:
        """The first of these columns that holds something, as stripped text; empty when none does."""
        for column in columns:
            text = plain_text(self.values.get(column))
            if text:
                return text
        return ""

    def items(self, column: str) -> list[Any]:
        """A column that holds a list, or a list written as text (``"['3', '4']"``); empty when it holds nothing."""
        value = self.values.get(column)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return list(value)
        text = self.text(column)
        if not text:
            return []
        literal = read_literal(text)
        if not isinstance(literal, list | tuple):
            raise RowError("not a list", f"column {column!r} holds {text!r:.60}")
        return list(literal)

    def fields(self, column: str) -> Mapping[str, Any]:
        """A column that holds an object, or an object written as text; empty when it holds nothing."""
        value = self.values.get(column)
        if isinstance(value, Mapping):
            return value
        text = self.text(column)
        literal = read_literal(text) if text else {}
        if not isinstance(literal, Mapping):
            raise RowError("not an object", f"column {column!r} holds {text!r:.60}")
        return literal


def read_literal(text: str) -> Any:
    """A Python literal written as text: lists of options are stored so in several benchmarks. Nothing is executed.

    Raises:
        RowError: it is too long, or no literal.
    """
    if len(text) > MAX_LITERAL_CHARACTERS:
        raise RowError("list too long", f"{len(text)} characters, the limit is {MAX_LITERAL_CHARACTERS}")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise RowError("list cannot be read", f"{text!r:.60}") from error


def file_images(values: Mapping[str, Any], origin: Path) -> tuple[ImageRef, ...]:
    """The image files that a row names, relative to its own file.

    They lie beside that file or in its folder ``images``; where the file is in a folder ``data``, also beside that.

    Raises:
        RowError: the row names none, too many, or one outside these folders.
    """
    value = next((values[column] for column in IMAGE_COLUMNS if values.get(column)), None)
    roots = [origin.parent, origin.parent / "images"]
    if origin.parent.name == "data":
        roots.append(origin.parent.parent)
    tried = [image_refs(value, root) for root in roots]
    return tuple(
        next((place for place in places if place.path and place.path.is_file()), places[0])
        for places in zip(*tried, strict=True)
    )


# ------------------------------------------------------------------ JSON


def read_json_rows(path: Path, drops: Drops, images: bool = True) -> list[Row]:
    """The rows of a ``.jsonl`` file, or of a ``.json`` file that holds a list of rows or an object of rows by key.

    Raises:
        RacroError: the file is too large or not JSON. A bad row goes to ``drops``.
    """
    rows = []
    for place, values in _json_lines(path) if path.suffix == ".jsonl" else _json_file(path):
        where = f"{path.name}:{place}"
        try:
            if isinstance(values, RowError):
                raise values
            if not isinstance(values, dict):
                raise RowError("not a JSON object", f"got {type(values).__name__}")
            rows.append(Row(where, path, values, file_images(values, path) if images else ()))
        except RowError as error:
            drops.add(where, error)
    return rows


def _json_file(path: Path) -> Iterator[tuple[str, Any]]:
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise RacroError(f"{path} has {size} bytes; the limit is {MAX_JSON_BYTES}, use a .jsonl file for more")
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise RacroError(f"{path} is not JSON: {error}") from error
    if isinstance(content, list):
        yield from ((str(place), row) for place, row in enumerate(content, start=1))
    elif isinstance(content, dict) and all(isinstance(row, dict) for row in content.values()):
        yield from ((key, {ROW_KEY: key, **row}) for key, row in content.items())
    else:
        raise RacroError(f"{path} holds no rows; expected a list of objects, or an object of objects by key")


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                while line and not line.endswith(b"\n"):  # the rest is read away in pieces, never held at once
                    line = file.readline(MAX_LINE_BYTES)
                yield str(number), RowError("line too long", f"the limit is {MAX_LINE_BYTES} bytes")
            elif line.strip():
                try:
                    yield str(number), json.loads(line.decode("utf-8-sig"))
                except (ValueError, RecursionError) as error:
                    yield str(number), RowError("not a JSON object", str(error))
