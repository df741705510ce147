"""Which questions are about the same images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from racro_pl.types import ImageRef, Question


def with_others(questions: Sequence[Question]) -> list[Question]:
    """The questions, each with the others that have the same images (:attr:`Question.others`).

    The same are those of one file, or of one encoded picture: their pixels are not compared.
    """
    together: dict[tuple[ImageRef, ...], list[Question]] = defaultdict(list)
    for question in questions:
        together[question.images].append(question)
    return [
        question
        if len(same := together[question.images]) == 1
        else replace(question, others=tuple(other for other in same if other is not question))
        for question in questions
    ]
