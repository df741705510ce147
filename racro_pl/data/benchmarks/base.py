"""What every benchmark is: where its questions come from, and how they are grouped.

How its answers are scored is in ``racro_pl.evaluation.headlines``.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from racro_pl.data.readers.base import ReadResult
from racro_pl.types import Question


@dataclass(frozen=True)
class SplitInfo:
    """One split of a benchmark, as its authors published it."""

    questions: int
    """Number of questions of the complete split; 0 where no number is fixed."""
    tsv: str | None = None
    """Name of VLMEvalKit's file, without ``.tsv``."""
    md5: str | None = None
    """Of that file, as VLMEvalKit lists it."""


@dataclass(frozen=True)
class Found(ReadResult):
    """What was read, and the split that it turned out to be."""

    split: str = ""
    files: tuple[Path, ...] = ()
    """The tables that they stand in, where they are read from some."""


class Benchmark(abc.ABC):
    """One benchmark. Stateless: one instance serves everybody."""

    name: ClassVar[str]
    """As typed on the command line: ``mathvision``."""
    title: ClassVar[str]
    """As the paper's table spells it: ``MathVision``."""
    splits: ClassVar[Mapping[str, SplitInfo]]
    """The first one is the default."""
    hub_id: ClassVar[str | None] = None
    """Hugging Face data set that holds it."""
    in_average: ClassVar[bool] = True
    """Whether it is one of the paper's seven."""
    breakdowns: ClassVar[Mapping[str, str]] = {"category": "category"}
    """Breakdowns of its accuracy, each with what holds a question's class: ``category``, or a name in its metadata."""

    @abc.abstractmethod
    def read(self, path: str | None = None, split: str | None = None, images: bool = True) -> Found:
        """The questions of a split.

        ``Question.text`` is the whole text that captioner and reasoner are asked (hint, question, options, and the
        request for a letter), without ``<image>`` tags, so that all images stand before it; ``<image 1>`` and the
        like stay as text. ``Question.source`` is :attr:`name`.

        Args:
            path: a file or folder in any layout that the benchmark knows, or a hub id. Default: VLMEvalKit's file
                below ``$LMUData`` or ``~/LMUData``.
            split: one of :attr:`splits`; default: the one that the file's name tells, or the first that is there.
            images: whether images must be there and have usable headers; scoring needs none.

        Raises:
            RacroError: nothing is found there, the layout is unknown, or columns are missing.
        """

    def group(self, question: Question) -> str:
        """The unit that the headline is a mean over: the question itself, unless the benchmark groups questions."""
        return question.id

    def categories(self, question: Question) -> Mapping[str, str]:
        """Breakdowns that a question counts in: name of the breakdown to the question's class in it."""
        held = {**question.metadata, "category": question.category}
        return {name: held[key] for name, key in self.breakdowns.items() if held.get(key)}
