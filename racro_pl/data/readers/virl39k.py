"""ViRL39K, the training data of the paper: one parquet file and a folder of images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from racro_pl.data.readers.arrow import read_records
from racro_pl.data.readers.base import Drops, Reader, ReadResult, RowError, Split, keep_readable
from racro_pl.data.readers.fields import check_share, image_refs, place_images, split_of, typed_answer
from racro_pl.data.readers.ids import UniqueIds
from racro_pl.types import Question, RacroError

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "39Krelease.parquet"
PASS_RATES = ("PassRate_32BTrained", "PassRate_7BBase")
COLUMNS = ("question", "answer", *PASS_RATES, "category", "source", "qid", "image")
TEXT_ONLY_SOURCE = "DeepScaleR"
"""Rows of this source have no image; the reference implementation trains without them, and so do we."""


class ViRL39KReader(Reader):
    """Reads ``<root>/39Krelease.parquet`` and the images that it names below ``<root>``.

    Gold answers come out of their ``\\boxed{}``; no row is left out for its pass rate. Pass rates, source and id go
    into the question's metadata.

    Args:
        root: folder of the unpacked data set.
        validation_share: share of the questions, chosen by a hash of their id, to hold out for validation. The
            data set has no test split.
    """

    def __init__(self, root: str, validation_share: float = 0.01) -> None:
        check_share("validation_share", validation_share)
        self.root = Path(root)
        self.validation_share = validation_share

    def read(self, split: Split) -> ReadResult:
        """The questions of a split.

        Raises:
            RacroError: the parquet file or the image folder is missing, or not what it should be; different rows have
                one id.
        """
        path = self.root / FILE
        if not path.is_file():
            raise RacroError(f"ViRL39K: {path} not found; root must be the folder that holds {FILE} and images/")
        if not (self.root / "images").is_dir():
            raise RacroError(f"ViRL39K: {self.root / 'images'} not found; unpack the data set's images there")
        drops, ids = Drops(), UniqueIds()
        questions = []
        for number, (row, repaired) in enumerate(read_records(path, self._columns)):
            where = f"{FILE} row {number}"
            if isinstance(row, RowError):
                if split == "train":  # its id cannot be read, and with it its split: it counts once
                    drops.add(where, row)
                continue
            if row["source"] == TEXT_ONLY_SOURCE or self._split(row, number) != split:
                continue
            try:
                question = self._question(row, number)
                ids.add(question.id, where, question)
                questions.append(question)
                drops.repaired += [where] * repaired
            except RowError as error:
                drops.add(where, error)
        ids.check()
        return ReadResult(keep_readable(questions, drops), drops.counts)

    def _columns(self, schema: pa.Schema) -> list[str]:
        missing = sorted(set(COLUMNS) - set(schema.names))
        if missing:
            raise RacroError(
                f"ViRL39K: {self.root / FILE} has no column {', '.join(missing)}; is it the released file?"
            )
        return list(COLUMNS)

    def _split(self, row: dict[str, Any], number: int) -> Split:
        return split_of(_id(row, number), self.validation_share)

    def _question(self, row: dict[str, Any], number: int) -> Question:
        # A column may come as bytes in a file that is not the released one.
        for name in ("question", "category"):
            if not isinstance(row[name], str | None):
                raise RowError(f"{name} is no text", repr(row[name])[:80])
        if not (row["question"] or "").strip():
            raise RowError("no question")
        text, images = place_images(row["question"], image_refs(row["image"], self.root))
        answer, answer_type = typed_answer(row["answer"], text, ())
        return Question(
            id=_id(row, number),
            images=images,
            text=text,
            answer=answer,
            answer_type=answer_type,
            source="ViRL39K",
            category=row["category"] or "",
            metadata={
                "qid": row["qid"],
                "source": row["source"],
                **{name: _pass_rate(row[name]) for name in PASS_RATES},
            },
        )


def _id(row: dict[str, Any], number: int) -> str:
    return f"row-{number}" if row["qid"] in (None, "") else str(row["qid"])


def _pass_rate(value: float | None) -> float | None:
    # -1 stands for "not measured" in the file.
    return None if value is None or math.isnan(value) or value < 0 else value
