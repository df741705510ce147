"""The one rule for ids, in training, ``data check``, ``test`` and ``score``: an id names one row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from racro_pl.data.readers.base import RowError
from racro_pl.types import Question, RacroError


class UniqueIds:
    """Remembers which row has which id.

    A row that repeats an earlier one, id and content, is left out. Different rows with one id are an error: it would
    be open which of them an answer belongs to.
    """

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, Any]] = {}
        self._clashes: list[tuple[str, str, str]] = []

    def add(self, key: str, where: str, content: Any) -> None:
        """Note a row: its id, its place for messages (``train.jsonl:17``), and what the same row again would repeat.

        Raises:
            RowError: an earlier row says the same.
        """
        first, known = self._first.setdefault(key, (where, content))
        if known is content:
            return
        if known == content:
            raise RowError("same row again", f"id {key!r} with the same content at {first}")
        self._clashes.append((first, where, key))

    def check(self) -> None:
        """Raise :class:`RacroError` when different rows share an id; it names both."""
        if not self._clashes:
            return
        first, second, key = self._clashes[0]
        more = len(self._clashes) - 1
        raise RacroError(
            f"{first} and {second} both have the id {key!r:.100}, and differ"
            + (f" ({more} more such rows)" if more else "")
            + ": give every row an id of its own, or take all but one out"
        )


def check_unique(what: str, questions: Sequence[Question]) -> None:
    """Raise :class:`RacroError` when two questions of any reader share an id; ``what`` names them."""
    places: dict[str, int] = {}
    for number, question in enumerate(questions, start=1):
        first = places.setdefault(question.id, number)
        if first != number:
            raise RacroError(
                f"{what}: question {first} and question {number} both have the id {question.id!r:.100}: the reader "
                "must give every question an id of its own"
            )
