"""Files with one JSON object a line, read within bounds: a line's length, and the values in it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from racro_pl.data.readers.base import RowError
from racro_pl.text.cleaning import clean

MAX_VALUES = 1_000_000
"""Values in one line. Each costs some 60 bytes once it is parsed, and takes two or three to write: ``[],[],[]``."""
# A string (the last may lack its end), or what stands before every value but the first. Possessive: linear in time.
_TOKEN = re.compile(rb""""[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[,\[{]""", re.DOTALL)


class Line(NamedTuple):
    """One line, or row, that is not blank."""

    number: int
    row: dict[str, Any] | RowError
    repaired: bool
    """Whether odd characters were taken out of its texts (:mod:`racro_pl.text.cleaning`)."""


def json_lines(path: Path, max_bytes: int) -> Iterator[Line]:
    """The lines of a file, in order; one that is no JSON object, or longer than ``max_bytes``, as its RowError.

    A line that is too long is never held in memory as a whole.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(max_bytes + 1):
            number += 1
            if len(line) > max_bytes:
                while line and not line.endswith(b"\n"):
                    line = file.readline(max_bytes)
                yield Line(number, RowError("line too long", f"the limit is {max_bytes} bytes"), False)
            elif line.strip():
                yield _parsed(number, line)


def _parsed(number: int, line: bytes) -> Line:
    try:
        return Line(number, *clean_row(parse_json(line)))
    except (ValueError, RecursionError) as error:
        return Line(number, RowError("not a JSON object", str(error)), False)


def clean_row(row: Any) -> tuple[dict[str, Any] | RowError, bool]:
    """A parsed value as a row with clean texts, or why it is none; and whether something had to be cleaned."""
    if not isinstance(row, dict):
        return RowError("not a JSON object", f"got {type(row).__name__}"), False
    try:
        cleaned = clean(row)
    except ValueError as error:
        return RowError("not a JSON object", str(error)), False
    return cleaned, cleaned is not row


def parse_json(text: bytes, max_values: int = MAX_VALUES) -> Any:
    """A JSON text in UTF-8, with or without a byte-order mark.

    Raises:
        ValueError: it is none, holds more than ``max_values`` values, or an object in it names a key twice.
        RecursionError: it is nested too deeply.
    """
    if sum(text.count(mark) for mark in b",[{") > max_values:  # strings counted too: now without them
        values = (match for match in _TOKEN.finditer(text) if match[0][:1] != b'"')
        if next(islice(values, max_values, None), None) is not None:
            raise ValueError(f"more than {max_values} values")
    return json.loads(text.decode("utf-8-sig"), object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; Python's own way is to take the last of two values, and to say nothing."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice!r:.80} stands twice in one object")
    return found
