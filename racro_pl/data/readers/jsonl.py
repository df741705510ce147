"""The plain layout in a file with one JSON object a line, and images in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from racro_pl.data.readers.lines import json_lines
from racro_pl.data.readers.plain import PlainFileReader, PlainRow

MAX_LINE_BYTES = 1_000_000
"""Longest line that is parsed; images are named, not embedded, so a longer one is a mistake."""


class JsonlReader(PlainFileReader):
    """Reads the plain layout, which is also MATH-V's: one JSON object a line."""

    kind = "a file with one JSON object a line"

    def rows(self, path: Path) -> Iterator[PlainRow]:
        """The lines of a file that are not blank."""
        for number, row, repaired in json_lines(path, MAX_LINE_BYTES):
            yield PlainRow(
                f"{path.name}:{number}", f"{path.stem}-{number}", row, repaired, self.root_of(path), path.stem
            )
