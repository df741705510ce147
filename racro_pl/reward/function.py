"""A reward that a Python function gives."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from racro_pl.reward.reward_function import RewardFunction, RewardFuture
from racro_pl.types import Question, RacroError, Rewards

RewardCallable = Callable[[Question, Sequence[str]], Sequence[float | None]]
"""(question, its captions) -> one number per caption, or None for a caption that has no score."""
NO_SCORE = "no score: the reward function gave None"


class FunctionReward(RewardFunction):
    """Rewards captions by a function; for Python, as a configuration cannot hold one.

    The function is called when rewards are needed, after all of a step's captions are sampled. Accuracy then is the
    share of captions with a positive reward.

    Args:
        function: takes a question and its captions, gives one finite number per caption, or None.
        max_unscored_share: share of a step's captions without a score above which the run stops.
    """

    answers_questions = False

    def __init__(self, function: RewardCallable, max_unscored_share: float = 0.5) -> None:
        self.function = function
        self.max_unscored_share = max_unscored_share
        self._stats: Counter[str] = Counter()

    def check(self) -> None:
        """There is no server to reach."""

    def submit(self, question: Question, captions: Sequence[str], seed: int = 0) -> RewardFuture:
        self._stats["captions"] += len(captions)
        return RewardFuture(lambda: self._rewards(question, captions))

    def _rewards(self, question: Question, captions: Sequence[str]) -> Rewards:
        returned: Any = self.function(question, captions)
        if not isinstance(returned, Iterable):
            raise RacroError(f"the reward function gave {returned!r:.80}; expected a list of a number per caption")
        given = list(returned)
        if len(given) != len(captions):
            raise RacroError(
                f"the reward function gave {len(given)} rewards for {len(captions)} captions; expected one each"
            )
        bad = [value for value in given if value is not None and not _is_finite(value)]
        if bad:
            raise RacroError(f"the reward function gave {bad[0]!r:.80}; expected a finite number, or None for no score")
        scored = tuple(value is not None for value in given)
        self._stats["unscored"] += len(given) - sum(scored)
        total = tuple(0.0 if value is None else float(value) for value in given)
        return Rewards(
            total=total,
            parts={"correct": tuple(float(value > 0) for value in total)},
            scored=scored,
            reasons=tuple(None if known else NO_SCORE for known in scored),
            answers=((),) * len(given),
            extracted=((),) * len(given),
        )

    def drain_stats(self) -> dict[str, float]:
        stats = {"captions": 0.0, "unscored": 0.0} | {name: float(count) for name, count in self._stats.items()}
        self._stats.clear()
        return stats

    def close(self) -> None:
        """There is nothing to close."""


def _is_finite(value: Any) -> bool:
    """Whether it is a number that is one: Python's, or what can be made one, such as NumPy's or a tensor's."""
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of several numbers
        return False
