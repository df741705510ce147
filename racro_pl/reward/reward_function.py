"""Reward interface: submit captions, get a future."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence

from racro_pl.types import Question, Rewards


class RewardFuture:
    """The rewards of one question's captions, on their way. They are computed when they are first asked for, and once.

    Args:
        compute: waits for what they depend on.
    """

    def __init__(self, compute: Callable[[], Rewards]) -> None:
        self._compute = compute
        self._rewards: Rewards | None = None

    def result(self) -> Rewards:
        """Wait for them. A second call returns the same object."""
        if self._rewards is None:
            self._rewards = self._compute()
        return self._rewards


class RewardFunction(abc.ABC):
    """Gives each caption a reward, or says why it has none."""

    max_unscored_share: float
    """Share of a step's captions without a score above which the run stops."""
    budget: float | None = None
    """Money after which the run stops; None for no bound."""
    max_answerless_steps: int | None = None
    """Steps in a row without any answer after which the run stops; None for no bound."""

    answers_questions = True
    """Whether captions get answers that a benchmark can score: see :meth:`responses`."""

    @property
    def spent(self) -> float:
        """Money that rewards cost so far in this process."""
        return 0.0

    @abc.abstractmethod
    def check(self) -> None:
        """Make sure that rewards can be given, before a run starts.

        Raises:
            RacroError: they cannot; the message says what to do.
        """

    @abc.abstractmethod
    def submit(self, question: Question, captions: Sequence[str], seed: int = 0) -> RewardFuture:
        """Begin to score a question's G captions, without waiting.

        ``seed`` is that of this step's random choices, wherever they are made here.
        """

    def responses(self, captions: Sequence[str], rewards: Rewards) -> tuple[tuple[str, ...], ...]:
        """Per caption, the answers to the question that its reward came from, for a benchmark's own rules."""
        return rewards.answers

    @abc.abstractmethod
    def drain_stats(self) -> dict[str, float]:
        """Counts since the last call, for the log; ``captions`` is among them."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of servers and workers. Using the reward again opens them again."""


def rewards_within(reward: RewardFunction) -> Iterator[RewardFunction]:
    """A reward and all that it is made of: those among its attributes, or in their lists and tuples, and so on.

    Found rather than declared, so that a check also sees what a reward of the user's own is built around.
    """
    yield reward
    for value in vars(reward).values():
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, RewardFunction):
                yield from rewards_within(part)
