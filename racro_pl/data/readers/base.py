"""What every reader is, and what readers share: counting what is left out, and the look at every image's header."""

from __future__ import annotations

import abc
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from rich.progress import track

from racro_pl.images import ImageError, image_size
from racro_pl.terminal import Console, get_logger
from racro_pl.types import Question

log = get_logger(__name__)

T = TypeVar("T")
Split = Literal["train", "validation", "test"]
MAX_IMAGES = 8
"""Images per question, as in the reference implementation; a row with more is left out."""
HEADER_THREADS = 16
"""Headers come from disks and network drives: waiting, not computing."""
NAMED = 3
"""Rows left out that are named, of each reason."""
MANY = 2000
"""From this many items on, work shows a progress bar."""


class RowError(Exception):
    """A row that cannot become a question.

    Args:
        reason: a short phrase, the same for all rows with this fault: they are counted by it.
        detail: what exactly is wrong with this row.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class Drops:
    """Counts rows left out, by reason, and logs the first few of each reason by name; and rows repaired.

    Args:
        shown: how many rows per reason to log.
    """

    def __init__(self, shown: int = NAMED) -> None:
        self.counts: Counter[str] = Counter()
        self.named: dict[str, list[str]] = {}
        """The first of each reason: where they are, and what is wrong with them."""
        self.repaired: list[str] = []
        """Rows that had odd characters taken out (:mod:`racro_pl.text.cleaning`), by their places."""
        self.shown = shown

    def add(self, where: str, error: RowError) -> None:
        """Count one row; ``where`` names it, for instance ``train.jsonl:17``."""
        self.counts[error.reason] += 1
        if self.counts[error.reason] <= NAMED:
            detail = str(error).removeprefix(error.reason).removeprefix(": ")
            self.named.setdefault(error.reason, []).append(f"{where} {detail}".strip())
        if self.counts[error.reason] <= self.shown and first_process():
            log.warning("%s left out: %s", where, error)

    @contextmanager
    def taking(self, where: str, repaired: bool = False) -> Iterator[None]:
        """Around making something of a row: one of which nothing can be made (RowError) is counted and left out."""
        try:
            yield
            self.repaired += [where] * repaired
        except RowError as error:
            self.add(where, error)

    def tell_repaired(self) -> None:
        """Log in one line which rows were repaired; to be called when all are read."""
        if self.repaired and self.shown and first_process():
            named = ", ".join(self.repaired[: self.shown]) + (", ..." if len(self.repaired) > self.shown else "")
            log.warning("%d rows repaired (half characters, NUL or byte-order marks): %s", len(self.repaired), named)


@dataclass(frozen=True)
class ReadResult:
    """One split of a data set."""

    questions: list[Question]
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows left out, by reason. Rows that by the data set's own rule do not belong to it are not counted."""
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The first of them, by reason, where the reader knows which they are."""


class Reader(abc.ABC):
    """Turns one data set into questions."""

    @abc.abstractmethod
    def read(self, split: Split) -> ReadResult:
        """All usable questions of a split, in a fixed order; empty when the data set has no such split.

        Every question has 1 to ``MAX_IMAGES`` images with good headers, an answer, and either no ``<image>`` tag
        in its text or one per image.

        Raises:
            RacroError: the data set itself is missing or unreadable. A bad row is dropped and counted instead.
        """

    def audit_names(self) -> tuple[str, ...]:
        """Names of the figures of :meth:`audit_caption`; most data sets have none."""
        return ()

    def audit_caption(self, question: Question, caption: str) -> Mapping[str, float]:
        """What the data set itself knows about a caption, one figure in 0...1 per name of :meth:`audit_names`."""
        return {}


def first_process() -> bool:
    """Whether this process may speak: of several on one job, only the first does."""
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"


def keep_readable(questions: Sequence[Question], drops: Drops) -> list[Question]:
    """The questions all of whose images exist and have usable headers; the others go to ``drops``."""
    kept = []
    for question, problem in look_at(questions, _image_problem, "reading image headers", HEADER_THREADS):
        if problem is None:
            kept.append(question)
        else:
            drops.add(f"question {question.id}", problem)
    drops.tell_repaired()
    return kept


def look_at(
    questions: Sequence[Question], look: Callable[[Question], T], title: str, threads: int | None = None
) -> Iterator[tuple[Question, T]]:
    """Every question with what ``look`` says of it, on several threads."""
    with ThreadPoolExecutor(threads) as pool:
        yield from zip(questions, tracked(pool.map(look, questions), title, len(questions)), strict=True)


def tracked(items: Iterable[T], title: str, total: int) -> Iterable[T]:
    """The items, one by one; a terminal shows a bar where there are many."""
    silent = total < MANY or not first_process() or not sys.stderr.isatty()
    return track(items, title, total, console=Console(stderr=True), transient=True, disable=silent)


def _image_problem(question: Question) -> RowError | None:
    for ref in question.images:
        try:
            image_size(ref)
        except ImageError as error:
            if not ref.is_there:
                return RowError("image file not found", str(ref.path))
            # Pillow adds where a buffer is in memory, which differs from run to run.
            return RowError("unusable image", re.sub(r" \(cannot identify image file <.*>\)", "", str(error)))
    return None
