"""The plain layout in a file with one JSON object a line, and images in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from racro_pl.data.readers.base import RowError
from racro_pl.data.readers.lines import Line, json_lines
from racro_pl.data.readers.plain import PlainFileReader

MAX_LINE_BYTES = 1_000_000
"""Longest line that is parsed; images are named, not embedded, so a longer one is a mistake."""


class JsonlReader(PlainFileReader):
    """Reads the plain layout, which is also MATH-V's: one JSON object a line."""

    kind = "a file with one JSON object a line"
    mark = ":"

    def lines(self, path: Path) -> Iterator[Line]:
        """The lines of a file that are not blank.

        Raises:
            RacroError: no line has a column that every one must have, so that its name must be another.
        """
        found: dict[str, None] = {}
        for line in json_lines(path, MAX_LINE_BYTES):
            if not isinstance(line.row, RowError):
                # Of later lines only names that are looked for: every line might have others.
                found |= dict.fromkeys(name for name in line.row if not found or name in self.columns.used)
            yield line
        if found:
            self.columns.require(str(path), found)
