"""Several data sets as one."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

from racro_pl.data.readers.base import NAMED, Reader, ReadResult, Split
from racro_pl.types import Question, RacroError


class MixedReader(Reader):
    """Joins data sets. Ids become ``name/id``, and a question without a category gets its data set's name as one.

    Args:
        readers: the data sets, by a name for each.
        weights: how much of the training questions each data set gives, relative to the others; null: all of all. As
            many questions are taken as there are without repeating one, each data set's by a hash of their ids, so
            that the choice stays when rows are added; the others are counted as left out. Of validation and test
            questions, always all of all.
    """

    def __init__(self, readers: dict[str, Reader], weights: dict[str, float] | None = None) -> None:
        if not readers:
            raise RacroError("MixedReader got no readers; name at least one")
        if any(not name or "/" in name for name in readers):
            raise RacroError(f"the readers' names are {', '.join(map(repr, readers))}; expected some without '/'")
        if weights is not None:
            if set(weights) != set(readers):
                raise RacroError(
                    f"weights has {', '.join(sorted(weights))}; expected one for each of {', '.join(sorted(readers))}"
                )
            if not all(0 < weight < float("inf") for weight in weights.values()):
                raise RacroError(f"weights are {weights}; expected numbers above 0 (leave a reader out instead of 0)")
        self.readers = readers
        self.weights = weights

    def read(self, split: Split) -> ReadResult:
        """The questions of a split, data set by data set.

        Raises:
            RacroError: as the readers do; or a weighted data set has no training question.
        """
        results = {name: reader.read(split) for name, reader in self.readers.items()}
        found = {name: result.questions for name, result in results.items()}
        dropped = sum((result.dropped for result in results.values()), Counter[str]())
        if split == "train" and self.weights is not None and any(found.values()):
            chosen = _weighted(found, self.weights)
            dropped += Counter({f"above the weight of {name}": len(found[name]) - len(chosen[name]) for name in found})
            found = chosen
        named = {
            reason: [row for result in results.values() for row in result.named.get(reason, ())][:NAMED]
            for reason in dropped
        }
        return ReadResult([_named(question, name) for name in found for question in found[name]], dropped, named)


def _weighted(found: dict[str, list[Question]], weights: dict[str, float]) -> dict[str, list[Question]]:
    empty = [name for name, questions in found.items() if not questions]
    if empty:
        raise RacroError(f"{', '.join(empty)} has no training questions, but a weight; leave it out of the mix")
    unit = min(len(questions) / weights[name] for name, questions in found.items())
    counts = {name: max(1, round(unit * weights[name])) for name in found}
    return {name: _some(questions, counts[name]) for name, questions in found.items()}


def _some(questions: list[Question], count: int) -> list[Question]:
    def place(question: Question) -> bytes:
        return hashlib.blake2b(question.id.encode("utf-8", "surrogatepass"), digest_size=8).digest()

    chosen = {question.id for question in sorted(questions, key=place)[:count]}
    return [question for question in questions if question.id in chosen]


def _named(question: Question, name: str) -> Question:
    return replace(question, id=f"{name}/{question.id}", category=question.category or name)
