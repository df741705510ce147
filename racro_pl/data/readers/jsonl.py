"""The plain layout in a file with one JSON object a line, and images in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from racro_pl.data.readers.lines import Line, json_lines
from racro_pl.data.readers.plain import PlainFileReader

MAX_LINE_BYTES = 1_000_000
"""Longest line that is parsed; images are named, not embedded, so a longer one is a mistake."""


class JsonlReader(PlainFileReader):
    """Reads the plain layout, which is also MATH-V's: one JSON object a line."""

    kind = "a file with one JSON object a line"
    mark = ":"

    def lines(self, path: Path) -> Iterator[Line]:
        """The lines of a file that are not blank."""
        return json_lines(path, MAX_LINE_BYTES)
