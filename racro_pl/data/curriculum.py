"""Which training questions come how often, and when: by pass rate, by category, by what is solved already.

Everything is a function of the seed, the epoch, and the questions solved before the epoch, so that a resumed run goes
on in the very order it had.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import torch

from racro_pl.data.readers.base import Drops, RowError
from racro_pl.types import Question, RacroError, require_all


@dataclass
class Curriculum:
    """Options of the training questions' order; by default each comes once an epoch, shuffled.

    Experimental: no published configuration or experiment uses it.
    """

    pass_rate: str | None = None
    """Name of the data set's pass rates, for the next three: ViRL39K has ``PassRate_32BTrained`` and
    ``PassRate_7BBase`` (measured for half of its questions)."""
    lowest: float = 0.0
    """Questions with a pass rate below this are left out; questions without one stay."""
    highest: float = 1.0
    """Questions with a pass rate above this are left out."""
    easiest_first: bool = False
    """In the first epoch, questions come by falling pass rate (without one: as if of the median). Later: shuffled."""
    category_weights: dict[str, float] = field(default_factory=dict)
    """How often a category's questions are drawn, relative to those of categories not named here (1)."""
    solved_weight: float = 1.0
    """How often a question is drawn in the epochs after all its captions were right, relative to others; 0 skips it.
    A solved question that comes back and fails counts as unsolved again."""

    def __post_init__(self) -> None:
        bounded = self.easiest_first or (self.lowest, self.highest) != (0.0, 1.0)
        weights = {**self.category_weights, "solved questions (solved_weight)": self.solved_weight}
        require_all(
            "data.curriculum",
            (
                0 <= self.lowest <= self.highest <= 1,
                f"lowest {self.lowest} and highest {self.highest}; expected 0 <= lowest <= highest <= 1",
            ),
            (
                self.pass_rate is not None or not bounded,
                "lowest, highest and easiest_first need pass_rate, the name of the data set's pass rates",
            ),
            *((weight >= 0, f"{name} weighs {weight}; expected 0 or more") for name, weight in weights.items()),
        )

    def select(self, questions: Sequence[Question], drops: Drops) -> list[Question]:
        """The questions whose pass rate is within bounds; the others go to ``drops``.

        Raises:
            RacroError: the data set has no such pass rates, or no such category.
        """
        self._check(questions)
        kept = []
        for question in questions:
            rate = self._rate(question)
            if rate is None or self.lowest <= rate <= self.highest:
                kept.append(question)
            else:
                drops.add(f"question {question.id}", RowError("pass rate out of bounds", f"{rate:g}"))
        return kept

    def order(
        self, questions: Sequence[Question], solved: Set[str], epoch: int, generator: torch.Generator
    ) -> list[int]:
        """Indices of an epoch's questions, as many as there are questions; some may come several times or not at all.

        A question of weight ``w`` comes ``n w / sum w`` times on average over epochs, and in any one epoch that often
        rounded down or up (systematic resampling of a shuffled list). With equal weights, each comes once.

        Args:
            questions: n of them.
            solved: ids of those that were solved before this epoch.
            epoch: from 0 on.
            generator: seeded with the seed and the epoch, and nothing else.
        """
        order = torch.randperm(len(questions), generator=generator)
        weights = torch.tensor([self._weight(question, solved) for question in questions], dtype=torch.float64)
        # Equal weights change nothing; all of them are 0 where everything is solved, and then all of it comes again.
        if weights.unique().numel() > 1:
            steps = weights[order].cumsum(0)
            offset = torch.rand(1, generator=generator, dtype=torch.float64)
            marks = (torch.arange(len(questions)) + offset) / len(questions) * steps[-1]
            order = order[torch.searchsorted(steps, marks, right=True).clamp(max=len(questions) - 1)]
            # Copies of one question stand side by side.
            order = order[torch.randperm(len(order), generator=generator)]
        if self.easiest_first and epoch == 0:
            rates = torch.tensor(self._filled_rates(questions), dtype=torch.float64)
            order = order[rates[order].argsort(descending=True, stable=True)]
        return order.tolist()

    def _weight(self, question: Question, solved: Set[str]) -> float:
        weight = self.category_weights.get(question.category, 1.0)
        return weight * self.solved_weight if question.id in solved else weight

    def _rate(self, question: Question) -> float | None:
        return None if self.pass_rate is None else question.metadata.get(self.pass_rate)

    def _filled_rates(self, questions: Sequence[Question]) -> list[float]:
        rates = [self._rate(question) for question in questions]
        known = sorted(rate for rate in rates if rate is not None)
        median = known[len(known) // 2] if known else 0.0
        return [median if rate is None else rate for rate in rates]

    def _check(self, questions: Sequence[Question]) -> None:
        if self.pass_rate is not None and not any(self.pass_rate in question.metadata for question in questions):
            names = sorted({name for question in questions for name in question.metadata})
            raise RacroError(
                f"data.curriculum.pass_rate is {self.pass_rate!r}, which no question has; they have "
                f"{', '.join(names) or 'no metadata'}"
            )
        categories = {question.category for question in questions}
        unknown = sorted(set(self.category_weights) - categories)
        if unknown:
            raise RacroError(
                f"data.curriculum.category_weights names {', '.join(map(repr, unknown))}; this data has "
                f"{', '.join(map(repr, sorted(categories)))}"
            )
        if categories and all(self.category_weights.get(category) == 0 for category in categories):
            raise RacroError("data.curriculum.category_weights gives every category 0; expected at least one above")
