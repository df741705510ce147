"""Captions of many pictures: which there are, which have one already, and where they are written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from racro_pl.evaluation.store import Store, read_records
from racro_pl.evaluation.writers import Task, Writer
from racro_pl.files import write_atomically
from racro_pl.images import ImageError, image_size
from racro_pl.types import ImageRef, Question, RacroError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
QUESTION = "Describe the image."
KEY = ("image", "question")


@dataclass(frozen=True)
class Picture:
    """One caption to write."""

    name: str
    """As in the list, or relative to the folder; with the question it names the caption."""
    path: Path
    question: str


def pictures_of(source: Path, question: str) -> list[Picture]:
    """The pictures of a folder (with its subfolders), by name, or of a list.

    Args:
        source: a folder, or a ``.jsonl`` file with an ``image`` in every row, a path from the file's own folder, and
            a ``question`` where it has one of its own.
        question: for all others.

    Raises:
        RacroError: there is no such thing, it is empty, or a row has no image.
    """
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        found = [Picture(path.relative_to(source).as_posix(), path, question) for path in files]
        expected = f"images ({', '.join(SUFFIXES)})"
    elif source.suffix == ".jsonl" and source.is_file():
        found = [_of_row(row, number, source, question) for number, row in enumerate(read_records(source), 1)]
        expected = "rows"
    else:
        raise RacroError(f"{source}: expected a folder with images, or a .jsonl file with an image in every row")
    if not found:
        raise RacroError(f"{source} holds no {expected}")
    return list({(picture.name, picture.question): picture for picture in found}.values())


def _of_row(row: dict, number: int, source: Path, question: str) -> Picture:
    name, own = row.get("image"), row.get("question", question)
    if not isinstance(name, str) or not name or not isinstance(own, str) or not own.strip():
        raise RacroError(
            f"{source}:{number}: expected an object with image (a path) and, where it has its own, question (a text); "
            f"it has {', '.join(map(repr, sorted(row)))}"
        )
    return Picture(name, source.parent / name, own)


def claim(place: Path, existing: Sequence[Path], made_by: Mapping[str, Any]) -> None:
    """Note beside captions what writes them, and refuse to resume those that something else wrote.

    Args:
        place: the note's file.
        existing: files with captions that are there already.
        made_by: captioner and settings, as plain JSON values.

    Raises:
        RacroError: there are captions, and their note is missing or says something else.
    """
    if existing:
        known = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else None
        if known is None:
            other = f"whose captioner is unknown ({place.name} is missing)"
        else:
            names = sorted(name for name in {**known, **made_by} if known.get(name) != made_by.get(name))
            other = f"made with another {', '.join(names)}" if names else ""
        if other:
            raise RacroError(f"{existing[0]} holds captions {other}: move it away, or name another --output")
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, json.dumps(made_by, indent=1) + "\n")


class CaptionFile:
    """Captions as JSON lines: ``image``, ``question``, ``caption``, ``truncated``; what ``datasets`` reads as it is.

    Ranks append to files of their own beside it; :meth:`merge` joins them in the order of the pictures. Captions of
    other pictures and questions that it holds stay after them.
    """

    def __init__(self, path: Path, rank: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._store = Store(path.parent, path.stem, KEY, rank)

    def has(self, picture: Picture) -> bool:
        """Whether a caption is there already."""
        return (picture.name, picture.question) in self._store

    def add(self, picture: Picture, caption: str, truncated: bool | None) -> None:
        """Write one."""
        self._store.append(
            {"image": picture.name, "question": picture.question, "caption": caption, "truncated": truncated}
        )

    def close(self) -> None:
        """Have the disk hold everything."""
        self._store.close()

    def merge(self, pictures: Sequence[Picture]) -> None:
        """One file, in the order of the pictures. To be called on one rank, when all have closed theirs."""
        everything = Store(self.path.parent, self.path.stem, KEY)
        own = [record for picture in pictures if (record := everything.get((picture.name, picture.question)))]
        asked = {(picture.name, picture.question) for picture in pictures}
        others = [record for key, record in everything.items() if key not in asked]
        lines = [json.dumps(record, ensure_ascii=False) for record in own + others]
        write_atomically(self.path, "".join(f"{line}\n" for line in lines))
        for part in caption_files(self.path):
            if part != self.path:
                part.unlink()


def caption_files(path: Path) -> list[Path]:
    """What there is of a caption file: itself, and what further ranks of an interrupted call left beside it."""
    return [path] * path.exists() + sorted(path.parent.glob(f"{path.stem}-rank*.jsonl"))


class Sidecars:
    """A text file beside every picture, of the same name: what trainers of image generators read.

    Raises:
        RacroError: two captions would have the same file.
    """

    def __init__(self, pictures: Sequence[Picture]) -> None:
        places: dict[Path, Picture] = {}
        for picture in pictures:
            other = places.setdefault(sidecar(picture), picture)
            if other is not picture:
                raise RacroError(
                    f"{other.name} and {picture.name} would both have their caption in {sidecar(picture)}; write "
                    "captions to a .jsonl file, or rename one of them"
                )

    def has(self, picture: Picture) -> bool:
        return sidecar(picture).exists()

    def add(self, picture: Picture, caption: str, truncated: bool | None) -> None:
        write_atomically(sidecar(picture), caption + "\n")

    def close(self) -> None:
        """Every file is whole when it has its name."""

    def merge(self, pictures: Sequence[Picture]) -> None:
        """There is nothing to join."""


def sidecar(picture: Picture) -> Path:
    """Where a picture's caption stands."""
    return picture.path.with_suffix(".txt")


class PictureCaptions:
    """Captions that pictures have not yet; a picture that cannot be used is told and counted.

    ``pictures`` are this process's; ``tell`` is told of each without a caption.
    """

    title = "captions"

    def __init__(
        self, pictures: Sequence[Picture], output: CaptionFile | Sidecars, tell: Callable[[str], None]
    ) -> None:
        self._pictures = pictures
        self._output = output
        self._tell = tell
        self.problems: Counter[str] = Counter()
        """Pictures without a caption, by reason."""

    def left(self) -> int:
        return sum(not self._output.has(picture) for picture in self._pictures)

    def write(self, items: Sequence[Picture], writer: Writer) -> Iterator[None]:
        """Write what is missing; yields after every picture, also after those that cannot be used."""
        todo: dict[str, Picture] = {}
        work: list[tuple[Question, Task]] = []
        for index, picture in enumerate(items):
            if self._output.has(picture):
                continue
            image = ImageRef(path=picture.path)
            try:
                image_size(image)
            except ImageError as error:
                self._problem(picture, f"unusable image: {error}")
                yield
                continue
            question = Question(str(index), (image,), picture.question, answer="", answer_type="math")
            todo[question.id] = picture
            work.append((question, "caption"))
        for written in writer.write(work) if work else ():
            picture = todo[written.question.id]
            if written.text is None:
                self._problem(picture, written.error or "no caption")
            else:
                self._output.add(picture, written.text, written.truncated)
            yield

    def end(self) -> None:
        self._output.close()

    def _problem(self, picture: Picture, error: str) -> None:
        self.problems[error.split(":", 1)[0]] += 1
        self._tell(f"{picture.name}: {error}")
