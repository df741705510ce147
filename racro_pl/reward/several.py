"""Several reasoners at once: captions that more than one reader can use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from racro_pl.reward.reasoner import Reasoner
from racro_pl.reward.reward_function import RewardFuture
from racro_pl.reward.scorer import Scorer, require_budget
from racro_pl.types import Question, Rewards, require

Combine = Literal["mean", "minimum"]


class SeveralReasoners(Scorer):
    """``R = mean_k R_k`` or ``R = min_k R_k`` over reasoners ``k``, each asked all the votes.

    The mean pays for every reader that understood; the minimum only for what all of them did (with one vote: 1 when
    all are right). A caption has a score when every reasoner gave it one: a mean over those that happened to answer
    would compare captions by who was reachable. Parts: ``correct`` combined likewise, ``correct/1``, ``correct/2``,
    ... of each reasoner in order, the others averaged.

    Experimental: no published configuration or experiment uses it.
    """

    def __init__(
        self, reasoners: list[Reasoner], combine: Combine = "mean", budget: float | None = None, **options: Any
    ) -> None:
        """
        Args:
            reasoners: Who answers; two or more of different identity.
            combine: ``mean`` or ``minimum``.
            budget: Money that all of them together may cost; those without a price cost nothing.
            **options: A scorer's, for each of them.
        """
        require(len(reasoners) >= 2, f"{len(reasoners)} reasoners", "two or more; for one, use Scorer")
        require(combine in ("mean", "minimum"), f"combine={combine!r}", "mean or minimum")
        identities = {reasoner.identity for reasoner in reasoners}
        require(
            len(identities) == len(reasoners), "the same reasoner twice", "different ones, or votes for one of them"
        )
        require_budget(budget, reasoners)
        super().__init__(reasoners[0], **options)
        self.budget = budget
        self.combine = combine
        self._others = [Scorer(reasoner, **options) for reasoner in reasoners[1:]]

    def check(self) -> None:
        super().check()
        for scorer in self._others:
            scorer.check()

    def submit(self, question: Question, captions: Sequence[str], seed: int = 0) -> RewardFuture:
        waiting = [super().submit(question, captions, seed)]
        waiting += [scorer.submit(question, captions, seed) for scorer in self._others]
        combine = mean if self.combine == "mean" else min
        return RewardFuture(lambda: _combined([future.result() for future in waiting], combine))

    @property
    def spent(self) -> float:
        return super().spent + sum(scorer.spent for scorer in self._others)

    def drain_stats(self) -> dict[str, float]:
        """Counts of all reasoners together; ``captions`` once, ``seconds`` of the longest."""
        stats = super().drain_stats()
        for scorer in self._others:
            for name, value in scorer.drain_stats().items():
                if name in ("captions", "seconds", "cache_hit_rate"):
                    stats[name] = max(stats.get(name, 0.0), value)
                else:
                    stats[name] = stats.get(name, 0.0) + value
        return stats

    def close(self) -> None:
        super().close()
        for scorer in self._others:
            scorer.close()


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def joined(each: Sequence[Rewards], combine: Callable[[Sequence[float]], float] = mean) -> Rewards:
    """The first of several rewards of the same captions, with the totals of all combined.

    A caption has a score when all of them gave it one; else the first reason for which it has none.
    """
    scored = tuple(all(flags) for flags in zip(*(rewards.scored for rewards in each), strict=True))
    totals = (combine(values) for values in zip(*(rewards.total for rewards in each), strict=True))
    reasons = zip(*(rewards.reasons for rewards in each), strict=True)
    return replace(
        each[0],
        total=tuple(total if known else 0.0 for total, known in zip(totals, scored, strict=True)),
        scored=scored,
        reasons=tuple(next((reason for reason in row if reason is not None), None) for row in reasons),
    )


def _combined(each: Sequence[Rewards], combine: Callable[[Sequence[float]], float]) -> Rewards:
    def over(name: str, how: Callable[[Sequence[float]], float]) -> tuple[float, ...]:
        return tuple(how(values) for values in zip(*(rewards.parts[name] for rewards in each), strict=True))

    parts = {name: over(name, mean) for name in each[0].parts if name != "correct"}
    return replace(
        joined(each, combine),
        parts={
            "correct": over("correct", combine),
            **parts,
            **{f"correct/{index}": rewards.parts["correct"] for index, rewards in enumerate(each, start=1)},
        },
        answers=tuple(sum(texts, ()) for texts in zip(*(rewards.answers for rewards in each), strict=True)),
        extracted=tuple(sum(found, ()) for found in zip(*(rewards.extracted for rewards in each), strict=True)),
    )
