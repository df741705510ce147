"""ViRL39K, the training data of the paper: one parquet file and a folder of images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from racro_pl.data.readers.arrow import read_records
from racro_pl.data.readers.base import RowError
from racro_pl.data.readers.plain import PlainReader, PlainRow
from racro_pl.types import RacroError

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "39Krelease.parquet"
PASS_RATES = ("PassRate_32BTrained", "PassRate_7BBase")
COLUMNS = ("question", "answer", *PASS_RATES, "category", "source", "qid", "image")
TEXT_ONLY_SOURCE = "DeepScaleR"
"""Rows of this source have no image; the reference implementation trains without them, and so do we."""


class ViRL39KReader(PlainReader):
    """Reads ``<root>/39Krelease.parquet`` and the images that it names below ``<root>``.

    Gold answers come out of their ``\\boxed{}``; no row is left out for its pass rate. Pass rates, source and id go
    into the question's metadata.

    Args:
        root: folder of the unpacked data set.
        validation_share: share of the questions, chosen by a hash of their id, to hold out for validation. The
            data set has no test split.
    """

    def __init__(self, root: str, validation_share: float = 0.01) -> None:
        super().__init__({"train": root, "validation": None, "test": None}, validation_share=validation_share)

    def rows(self, source: str) -> Iterator[PlainRow]:
        """The rows that have images.

        Raises:
            RacroError: the parquet file or the image folder is missing, or not what it should be.
        """
        root = Path(source)
        path = root / FILE
        if not path.is_file():
            raise RacroError(f"ViRL39K: {path} not found; root must be the folder that holds {FILE} and images/")
        if not (root / "images").is_dir():
            raise RacroError(f"ViRL39K: {root / 'images'} not found; unpack the data set's images there")

        def columns(schema: pa.Schema) -> tuple[str, ...]:
            missing = sorted(set(COLUMNS) - set(schema.names))
            if missing:
                raise RacroError(f"ViRL39K: {path} has no column {', '.join(missing)}; is it the released file?")
            return COLUMNS

        for number, (row, repaired) in enumerate(read_records(path, columns)):
            if not isinstance(row, RowError) and row["source"] == TEXT_ONLY_SOURCE:
                continue
            yield PlainRow(f"{FILE} row {number}", f"row-{number}", _checked(row), repaired, root, "ViRL39K")

    def metadata(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Id, source, and the pass rates that were measured."""
        return {"qid": row["qid"], "source": row["source"], **{name: _pass_rate(row[name]) for name in PASS_RATES}}


def _checked(row: dict[str, Any] | RowError) -> dict[str, Any] | RowError:
    # A column may come as bytes in a file that is not the released one.
    for name in ("question", "category"):
        if not isinstance(row, RowError) and not isinstance(row[name], str | None):
            return RowError(f"{name} is no text", repr(row[name])[:80])
    return row


def _pass_rate(value: float | None) -> float | None:
    # -1 stands for "not measured" in the file.
    return None if value is None or math.isnan(value) or value < 0 else value
