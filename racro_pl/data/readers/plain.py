"""The plain layout, whatever kind of file holds it: a row's columns, and how they become a question.

docs/data.md describes it to users.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from racro_pl.data.readers.base import Drops, Reader, ReadResult, RowError, Split, keep_readable
from racro_pl.data.readers.fields import (
    check_share,
    first_filled,
    image_refs,
    is_blank,
    place_images,
    plain_text,
    read_literal,
    read_options,
    split_of,
    typed_answer,
)
from racro_pl.data.readers.ids import UniqueIds
from racro_pl.data.readers.lines import Line
from racro_pl.text.choices import with_choices
from racro_pl.types import ImageRef, Question, RacroError

COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "index", "qid"),
    "question": ("question",),
    "answer": ("answer",),
    "images": ("image", "images"),
    "options": ("options", "choices"),
    "answer_type": ("answer_type",),
    "category": ("category", "subject"),
}
"""What a row holds, and the names that its column may have; of several, the first that is not blank counts.
Columns of images that are not blank must say the same."""
REQUIRED = ("question", "answer", "images")
"""What every row must hold."""


class PlainRow(NamedTuple):
    """One row of a file in the plain layout."""

    where: str
    """Its place, for messages: ``train.jsonl:17``."""
    key: str
    """Its id where it states none."""
    row: dict[str, Any] | RowError
    repaired: bool
    root: Path
    """Folder that its image paths start from."""
    source: str
    """Name of the data set."""


class ColumnNames:
    """Which column of a data set holds what.

    Args:
        columns: from what a row holds (a key of :data:`COLUMNS`) to the data set's own name for it; what is not named
            here is looked for under the usual names.

    Raises:
        RacroError: a key is none of those.
    """

    def __init__(self, columns: Mapping[str, str] | None = None) -> None:
        columns = columns or {}
        unknown = sorted(set(columns) - set(COLUMNS))
        if unknown:
            raise RacroError(f"columns names {', '.join(unknown)}; expected some of {', '.join(COLUMNS)}")
        self.names = {part: (columns[part],) if part in columns else usual for part, usual in COLUMNS.items()}
        self.used = {name for names in self.names.values() for name in names}

    def of(self, part: str, row: Mapping[str, Any]) -> Any:
        """What a row holds of a part; None where it holds nothing, or a blank text, as cells of tables do."""
        value = first_filled(row, self.names[part])
        return None if isinstance(value, str) and is_blank(value) else value

    def require(self, where: str, found: Iterable[str]) -> None:
        """Raise :class:`RacroError` when a data set has no column of a part that every row must hold."""
        found = list(found)
        for part in REQUIRED:
            if not set(self.names[part]) & set(found):
                raise RacroError(
                    f"{where} has no column {' or '.join(map(repr, self.names[part]))} for the {part}; it has "
                    f"{', '.join(found)[:400]}. Say which it is: columns: {{{part}: NAME}}"
                )


class PlainReader(Reader, ABC):
    """What readers of the plain layout share: column names, held-out shares, and the way from rows to questions.

    Args:
        sources: where the questions of each split are: a file, or a part of a data set.
        columns: the data set's own column names, by what they hold.
        validation_share: share of the training questions, chosen by a hash of their id, to hold out for validation;
            only without a source of validation questions.
        test_share: the same for the test split.
    """

    arguments: ClassVar[Mapping[Split, str]] = {"train": "train", "validation": "validation", "test": "test"}
    """Which argument names the source of a split, for messages."""

    def __init__(
        self,
        sources: dict[Split, str | None],
        columns: Mapping[str, str] | None = None,
        validation_share: float = 0.0,
        test_share: float = 0.0,
    ) -> None:
        shares: dict[Split, float] = {"validation": validation_share, "test": test_share}
        for split, share in shares.items():
            check_share(f"{split}_share", share)
            train, own = self.arguments["train"], self.arguments[split]
            if share and (sources[split] or not sources["train"]):
                raise RacroError(f"{split}_share is cut from {train}: give {train} and no {own}, or no {split}_share")
        check_share("validation_share + test_share", validation_share + test_share)
        self.sources = sources
        self.columns = ColumnNames(columns)
        self.validation_share = validation_share
        self.test_share = test_share

    @abstractmethod
    def rows(self, source: str) -> Iterable[PlainRow]:
        """The rows of a source, in order."""

    def read(self, split: Split, images: bool = True) -> ReadResult:
        """The questions of a split.

        Args:
            images: whether their files must be there and readable.

        Raises:
            RacroError: its source is missing, unreadable or too large, or different rows have one id.
        """
        own = self.sources[split]
        # Without a source of its own, a split has its share of the training questions.
        shared = split == "train" or own is None
        source = self.sources["train"] if shared else own
        if source is None:
            return ReadResult([])
        drops, ids = Drops(), UniqueIds()
        questions = []
        for where, default, row, repaired, root, name in self.rows(source):
            # A row without an id is named by its place.
            stated = None if isinstance(row, RowError) else self.columns.of("id", row)
            key = plain_text(stated) or default
            if shared and split_of(key, self.validation_share, self.test_share) != split:
                continue
            with drops.taking(where, repaired):
                if isinstance(row, RowError):
                    raise row
                if plain_text(stated) is None and not is_blank(stated):
                    raise RowError("id is neither text nor a number", f"{stated!r:.40}")
                question = self._question(row, key, root, name)
                ids.add(key, where, question)
                questions.append(question)
        ids.check()
        if not images:
            drops.tell_repaired()
            return ReadResult(questions, drops.counts, drops.named)
        return ReadResult(keep_readable(questions, drops), drops.counts, drops.named)

    def images(self, value: Any, root: Path) -> tuple[ImageRef, ...]:
        """A row's image column as references; raises :class:`RowError` where it cannot be."""
        return image_refs(value, root)

    def _question(self, row: dict[str, Any], key: str, root: Path, source: str) -> Question:
        text = self.columns.of("question", row)
        if not isinstance(text, str) or not text.strip():
            raise RowError("no question")
        images = self._images_of(row, root)
        options = read_options(_listed(self.columns.of("options", row)))
        declared = self.columns.of("answer_type", row)
        answer, answer_type = typed_answer(self.columns.of("answer", row), text, options, declared)
        text, images = place_images(with_choices(text, options), images)
        return Question(
            id=key,
            images=images,
            text=text,
            answer=answer,
            answer_type=answer_type,
            choices=options,
            source=source,
            category=plain_text(self.columns.of("category", row)) or "",
            metadata=self.metadata(row),
        )

    def _images_of(self, row: Mapping[str, Any], root: Path) -> tuple[ImageRef, ...]:
        filled = [name for name in self.columns.names["images"] if not is_blank(row.get(name))]
        first, *others = [self.images(row[name], root) for name in filled] or [self.images(None, root)]
        if any(other != first for other in others):
            names = " and ".join(map(repr, filled))
            raise RowError("several columns of images", f"{names} differ; say which counts: columns: {{images: NAME}}")
        return first

    def metadata(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What else a row holds."""
        return {name: value for name, value in row.items() if name not in self.columns.used}


def _listed(value: Any) -> Any:
    """Options: tables have no lists, and write them as text: ``"['left', 'right']"``."""
    return read_literal(value.strip()) if isinstance(value, str) and value.strip()[:1] in ("[", "{") else value


class PlainFileReader(PlainReader):
    """Reads the plain layout from files, one per split or one for all.

    Args:
        path: file of the training questions, or the only file.
        validation_path: file of the validation questions.
        test_path: file of the test questions.
        images_root: folder that the rows' image paths start from; default: each file's own folder.
        validation_share: share of the questions in ``path``, chosen by a hash of their id, to hold out for
            validation; only without ``validation_path``.
        test_share: the same for the test split; only without ``test_path``.
        columns: the file's own column names, by what they hold, such as ``{question: problem, images: picture}``.
    """

    arguments = {"train": "path", "validation": "validation_path", "test": "test_path"}
    kind: ClassVar[str]
    """What is expected of a file, for messages."""
    mark: ClassVar[str]
    """What stands between a file's name and a row's number, in messages."""

    def __init__(
        self,
        path: str | None = None,
        validation_path: str | None = None,
        test_path: str | None = None,
        images_root: str | None = None,
        validation_share: float = 0.0,
        test_share: float = 0.0,
        columns: dict[str, str] | None = None,
    ) -> None:
        files: dict[Split, str | None] = {"train": path, "validation": validation_path, "test": test_path}
        super().__init__({split: file or None for split, file in files.items()}, columns, validation_share, test_share)
        if not any(files.values()):
            raise RacroError(f"{type(self).__name__} got no file: set path, validation_path or test_path")
        self.images_root = Path(images_root) if images_root else None

    @abstractmethod
    def lines(self, path: Path) -> Iterable[Line]:
        """The rows of one file, in order."""

    def rows(self, source: str) -> Iterator[PlainRow]:
        """The rows of one file, each named by the file and its place in it."""
        path = Path(source)
        if not path.is_file():
            raise RacroError(f"data file not found: {path}; expected {self.kind}")
        root = self.images_root or path.parent
        for number, row, repaired in self.lines(path):
            where, key = f"{path.name}{self.mark}{number}", f"{path.stem}-{number}"
            yield PlainRow(where, key, row, repaired, root, path.stem)
