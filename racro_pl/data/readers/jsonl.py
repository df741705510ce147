"""The plain layout: a file with one JSON object a line, and images in a folder. docs/data.md describes it to users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from racro_pl.data.readers.base import Drops, Reader, ReadResult, RowError, Split, keep_readable
from racro_pl.data.readers.fields import (
    check_share,
    first_filled,
    image_refs,
    place_images,
    plain_text,
    read_options,
    split_of,
    typed_answer,
)
from racro_pl.data.readers.ids import UniqueIds
from racro_pl.data.readers.lines import json_lines
from racro_pl.text.choices import with_choices
from racro_pl.types import Question, RacroError

MAX_LINE_BYTES = 1_000_000
"""Longest line that is parsed; images are named, not embedded, so a longer one is a mistake."""
COLUMNS = {
    "id": ("id", "index", "qid"),
    "question": ("question",),
    "answer": ("answer",),
    "images": ("image", "images"),
    "options": ("options", "choices"),
    "answer_type": ("answer_type",),
    "category": ("category", "subject"),
}
"""What a row holds, and the names that its column may have; of several, the first that is not blank counts."""


class JsonlReader(Reader):
    """Reads the plain layout, which is also MATH-V's.

    Args:
        path: file of the training questions, or the only file.
        validation_path: file of the validation questions.
        test_path: file of the test questions.
        images_root: folder that the rows' image paths start from; default: each file's own folder.
        validation_share: share of the questions in ``path``, chosen by a hash of their id, to hold out for
            validation; only without ``validation_path``.
        test_share: the same for the test split; only without ``test_path``.
    """

    def __init__(
        self,
        path: str | None = None,
        validation_path: str | None = None,
        test_path: str | None = None,
        images_root: str | None = None,
        validation_share: float = 0.0,
        test_share: float = 0.0,
    ) -> None:
        check_share("validation_share", validation_share)
        check_share("test_share", test_share)
        check_share("validation_share + test_share", validation_share + test_share)
        for name, other, share in (("validation", validation_path, validation_share), ("test", test_path, test_share)):
            if share and (other or not path):
                raise RacroError(f"{name}_share is cut from path: give path and no {name}_path, or no {name}_share")
        if not (path or validation_path or test_path):
            raise RacroError("JsonlReader got no file: set path, validation_path or test_path")
        self.files: dict[Split, Path | None] = {
            "train": Path(path) if path else None,
            "validation": Path(validation_path) if validation_path else None,
            "test": Path(test_path) if test_path else None,
        }
        self.images_root = Path(images_root) if images_root else None
        self.validation_share = validation_share
        self.test_share = test_share

    def read(self, split: Split) -> ReadResult:
        """The questions of a split.

        Raises:
            RacroError: the file is missing, or different rows have one id.
        """
        own = self.files[split]
        shared = self.files["train"] if split == "train" or own is None else None
        path = shared or own
        if path is None:
            return ReadResult([])
        if not path.is_file():
            raise RacroError(f"data file not found: {path}; expected a file with one JSON object a line")
        drops, ids = Drops(), UniqueIds()
        questions = []
        for number, row, repaired in json_lines(path, MAX_LINE_BYTES):
            where = f"{path.name}:{number}"
            # A row without an id is named by its line.
            stated = None if isinstance(row, RowError) else plain_text(_field(row, "id"))
            key = stated or f"{path.stem}-{number}"
            if shared and split_of(key, self.validation_share, self.test_share) != split:
                continue
            try:
                if isinstance(row, RowError):
                    raise row
                question = self._question(row, key, path)
                ids.add(key, where, question)
                questions.append(question)
                drops.repaired += [where] * repaired
            except RowError as error:
                drops.add(where, error)
        ids.check()
        return ReadResult(keep_readable(questions, drops), drops.counts)

    def _question(self, row: dict[str, Any], key: str, path: Path) -> Question:
        text = _field(row, "question")
        if not isinstance(text, str) or not text.strip():
            raise RowError("no question")
        images = image_refs(_field(row, "images"), self.images_root or path.parent)
        options = read_options(_field(row, "options"))
        answer, answer_type = typed_answer(_field(row, "answer"), text, options, _field(row, "answer_type"))
        text, images = place_images(with_choices(text, options), images)
        used = {name for names in COLUMNS.values() for name in names}
        return Question(
            id=key,
            images=images,
            text=text,
            answer=answer,
            answer_type=answer_type,
            choices=options,
            source=path.stem,
            category=plain_text(_field(row, "category")) or "",
            metadata={name: value for name, value in row.items() if name not in used},
        )


def _field(row: dict[str, Any], name: str) -> Any:
    return first_filled(row, COLUMNS[name])
