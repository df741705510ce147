"""Which questions are about the same images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from racro_pl.types import ImageRef, Question


def with_pools(questions: Sequence[Question]) -> list[Question]:
    """The questions, each with all that have the same images (:attr:`Question.pool`), which share one tuple.

    The same are those of one file, or of one encoded picture: their pixels are not compared.
    """
    together: dict[tuple[ImageRef, ...], list[Question]] = defaultdict(list)
    for question in questions:
        together[question.images].append(question)
    pools = {images: tuple(same) for images, same in together.items() if images and len(same) > 1}
    return [
        replace(question, pool=pools[question.images]) if question.images in pools else question
        for question in questions
    ]
