"""What every benchmark is: where its questions come from, which rules score it, and its headline figure."""

from __future__ import annotations

import abc
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from racro_pl.data.readers.base import ReadResult
from racro_pl.evaluation.outcomes import Outcome, Rule
from racro_pl.types import Question


@dataclass(frozen=True)
class SplitInfo:
    """One split of a benchmark, as its authors published it."""

    questions: int
    """Number of questions of the complete split; 0 where nobody has fixed one."""
    tsv: str | None = None
    """Name of VLMEvalKit's file, without ``.tsv``."""
    md5: str | None = None
    """Of that file, as VLMEvalKit lists it."""


@dataclass(frozen=True)
class Found(ReadResult):
    """What was read, and the split that it turned out to be."""

    split: str = ""


class Benchmark(abc.ABC):
    """One benchmark. Stateless: one instance serves everybody."""

    name: ClassVar[str]
    """As typed on the command line: ``mathvision``."""
    title: ClassVar[str]
    """As the paper's table spells it: ``MathVision``."""
    headline: ClassVar[str] = "accuracy"
    """What the headline figure is called: ``accuracy``, ``worst case``, ``strict``."""
    splits: ClassVar[Mapping[str, SplitInfo]]
    """The first one is the default."""
    hub_id: ClassVar[str | None] = None
    """Hugging Face data set that holds it."""
    in_average: ClassVar[bool] = True
    """Whether it is one of the paper's seven."""
    rules: ClassVar[Mapping[str, Rule]]
    """``strict`` always; ``vlmevalkit`` and ``official`` where they exist."""

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

    def group_score(self, outcomes: Sequence[Outcome]) -> float:
        """Score of one group in 0...1: by default the share of right answers."""
        return sum(outcome.judgement.correct for outcome in outcomes) / len(outcomes)

    def group_scores(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """Score of every group; their mean is the headline."""
        groups: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in outcomes:
            groups[self.group(outcome.question)].append(outcome)
        return {name: self.group_score(members) for name, members in groups.items()}

    def categories(self, question: Question) -> Mapping[str, str]:
        """Breakdowns that a question counts in: name of the breakdown to the question's class in it."""
        return {"category": question.category} if question.category else {}

    def figures(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """Further figures of the whole benchmark, in 0...1, by name (WeMath's four kinds, DynaMath's average)."""
        return {}

    def expected(self, split: str) -> int:
        """Number of questions of the complete split."""
        return self.splits[split].questions
