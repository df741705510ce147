"""Rows, as every source hands them to a benchmark; and the authors' own JSON files as rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from racro_pl.data.benchmarks.prompts import without_tags
from racro_pl.data.readers.base import Drops, RowError
from racro_pl.data.readers.fields import first_filled, image_refs, plain_text, read_literal
from racro_pl.data.readers.lines import clean_row, json_lines, parse_json
from racro_pl.types import ImageRef, RacroError

MAX_JSON_BYTES = 200_000_000
"""Largest ``.json`` file that is parsed: it is parsed as a whole."""
MAX_JSON_VALUES = 5_000_000
"""Values in it; a benchmark of 10,000 questions has some 300,000."""
MAX_LINE_BYTES = 16_000_000
"""Longest line of a ``.jsonl`` file that is parsed: a file of model outputs, which may serve as questions, has some."""
ROW_KEY = "row key"
"""Column that holds a row's key where the file is one big object of rows by key."""
IMAGE_COLUMNS = ("image", "images", "image_path", "imagename")
"""Columns that name image files; of several, the first that is not blank counts."""


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

    def question(self, *columns: str) -> str:
        """The text of the question, without ``<image>`` tags: all images stand before it; ``<image 1>`` is a name.

        Raises:
            RowError: none of these columns holds one.
        """
        text = without_tags(self.text(*columns))
        if not text:
            raise RowError("no question")
        return text

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


def file_images(values: Mapping[str, Any], origin: Path) -> tuple[ImageRef, ...]:
    """The image files that a row names, relative to its own file.

    They lie beside that file or in its folder ``images``; where the file is in a folder ``data``, also beside that.

    Raises:
        RowError: the row names none, too many, or one outside these folders.
    """
    value = first_filled(values, IMAGE_COLUMNS)
    roots = [origin.parent, origin.parent / "images"]
    if origin.parent.name == "data":
        roots.append(origin.parent.parent)
    tried = [image_refs(value, root) for root in roots]
    return tuple(
        next((place for place in places if place.path and place.is_there), places[0])
        for places in zip(*tried, strict=True)
    )


# ------------------------------------------------------------------ JSON


def read_json_rows(path: Path, drops: Drops, images: bool = True) -> list[Row]:
    """The rows of a ``.jsonl`` file, or of a ``.json`` file that holds a list of rows or an object of rows by key.

    Raises:
        RacroError: the file is too large or not JSON. A bad row goes to ``drops``.
    """
    rows = []
    for place, values, repaired in json_lines(path, MAX_LINE_BYTES) if path.suffix == ".jsonl" else _json_file(path):
        where = f"{path.name}:{place}"
        with drops.taking(where, repaired):
            if isinstance(values, RowError):
                raise values
            values = row_of_log(values)
            rows.append(Row(where, path, values, file_images(values, path) if images else ()))
    return rows


def row_of_log(values: dict[str, Any]) -> dict[str, Any]:
    """A row of lmms-eval's sample log as a row of the benchmark: the columns of its ``doc``, and ``response``.

    Any other row comes back as it is.

    Raises:
        RowError: the log holds several responses to the question, or none.
    """
    if "doc_id" not in values or not {"resps", "filtered_resps"} & set(values):
        return values
    response: Any = values.get("resps") or values.get("filtered_resps")
    while isinstance(response, list):
        if len(response) != 1:
            raise RowError("not one response", f"document {values['doc_id']!r:.40} has {len(response)}")
        response = response[0]
    document = values.get("doc")
    return {**(document if isinstance(document, Mapping) else {"doc_id": values["doc_id"]}), "response": response}


def _json_file(path: Path) -> Iterator[tuple[int | str, dict[str, Any] | RowError, bool]]:
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise RacroError(f"{path} has {size} bytes; the limit is {MAX_JSON_BYTES}, use a .jsonl file for more")
    try:
        content = parse_json(path.read_bytes(), MAX_JSON_VALUES)
    except (ValueError, RecursionError) as error:
        raise RacroError(f"{path} is not JSON: {error}") from error
    rows: Iterable[tuple[int | str, Any]]
    if isinstance(content, list):
        rows = enumerate(content, start=1)
    elif isinstance(content, dict) and all(isinstance(row, dict) for row in content.values()):
        rows = ((key, {ROW_KEY: key, **row}) for key, row in content.items())
    else:
        raise RacroError(f"{path} holds no rows; expected a list of objects, or an object of objects by key")
    for place, row in rows:
        yield place, *clean_row(row)
