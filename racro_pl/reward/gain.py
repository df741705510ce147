"""The gain reward: what the caption added to what the reasoner knew from the question alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from racro_pl.reward.reasoner import Reasoner
from racro_pl.reward.reward_function import RewardFuture
from racro_pl.reward.scorer import Scorer
from racro_pl.text.reasoner_prompt import text_only_messages
from racro_pl.types import Messages, Question, Rewards


class GainScorer(Scorer):
    """``R = c * (1 - b)``: right with the caption (``c``), as far as it is not right without one (``b``).

    ``c`` and ``b`` are shares of right votes. A question that the reasoner answers without any caption (from common
    knowledge, or by a lucky option) teaches nothing about captions: with ``b = 1`` its rewards are all 0. ``b`` is
    asked once per question and kept for the run.

    The plain difference ``c - b`` (as in "Caption as Reward", 2025) is reported as the part ``gain``. As a reward it
    would change nothing here: ``b`` is the same for all captions of a group, and group-relative advantages do not see
    a constant. For the same reason a ``b`` between 0 and 1 scales rewards and matters only for losses whose advantages
    are not divided by the std (dr_grpo).

    Parts, beside a scorer's own: ``without_caption`` (b) and ``gain``. Where b is unknown, the captions go unscored.

    Experimental: no published configuration or experiment uses it.
    """

    def __init__(self, reasoner: Reasoner, **options: Any) -> None:
        """
        Args:
            reasoner: Who answers, with and without captions.
            **options: A scorer's.
        """
        super().__init__(reasoner, **options)
        self._text_only = _TextOnly(reasoner, **options)
        self._known: dict[str, float] = {}
        """b of each question asked so far, by its id."""

    def submit(self, question: Question, captions: Sequence[str], seed: int = 0) -> RewardFuture:
        pending = super().submit(question, captions, seed)
        # Always with the same seed: a resumed run asks again, and has to hear the same.
        blind = None if question.id in self._known else self._text_only.submit(question, ["nothing"])
        return RewardFuture(lambda: self._relative_to_blind(question.id, pending.result(), blind))

    def _relative_to_blind(self, question_id: str, rewards: Rewards, blind: RewardFuture | None) -> Rewards:
        correct = rewards.parts["correct"]
        if blind is not None and question_id not in self._known:
            without = blind.result()
            if not without.scored[0]:  # a failed answer is not kept
                nothing = (0.0,) * len(correct)
                # Those that lack an answer of their own are counted already.
                self._stats["unscored"] += sum(rewards.scored)
                self._stats["unscored/without caption"] += sum(rewards.scored)
                return replace(
                    rewards,
                    total=nothing,
                    parts={**rewards.parts, "without_caption": nothing, "gain": nothing},
                    scored=(False,) * len(correct),
                    reasons=tuple(own or f"without caption: {without.reasons[0]}" for own in rewards.reasons),
                )
            self._known[question_id] = without.parts["correct"][0]
        base = self._known[question_id]
        gain = tuple(share - base for share in correct)
        return replace(
            rewards,
            total=tuple(total * (1.0 - base) for total in rewards.total),
            parts={**rewards.parts, "without_caption": (base,) * len(correct), "gain": gain},
        )

    def drain_stats(self) -> dict[str, float]:
        """A scorer's, with what was asked without captions among it."""
        stats = super().drain_stats()  # its reasoner's tokens are those of both: it is the same one
        without = self._text_only.drain_stats()
        for name in ("requests", "replies", "truncated", "answered"):
            stats[name] += without[name]
        return stats

    def close(self) -> None:
        super().close()
        self._text_only.close()


class _TextOnly(Scorer):
    """A scorer whose reasoner is not told the caption."""

    def _messages(self, question_text: str, caption: str) -> Messages:
        return text_only_messages(question_text)
