"""The reward of plain question answering: the captioner's own answer, graded. No reasoner is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from racro_pl.reward.grader import Grader
from racro_pl.reward.reward_function import RewardFunction, RewardFuture
from racro_pl.reward.unscored import GRADING_TIMED_OUT
from racro_pl.text.answers import extract_answer
from racro_pl.types import Question, Rewards


class OwnAnswers(RewardFunction):
    r"""``R = 1`` when the text's own last ``\boxed{}`` holds the gold answer, else 0.

    A text without a box is wrong, so the format is rewarded with the answer; it has no reward of its own (whether the
    paper's first stage had one is not known). Parts: ``correct``, and ``answered``, whether there is a box.

    Args:
        max_unscored_share: share of a step's answers that could not be graded in time above which the run stops.
        grade_limit_s: seconds that one symbolic comparison may take.
    """

    def __init__(self, max_unscored_share: float = 0.5, grade_limit_s: float = 5.0) -> None:
        self.max_unscored_share = max_unscored_share
        self._grader = Grader(grade_limit_s)
        self._stats: Counter[str] = Counter()

    def check(self) -> None:
        """There is no server to reach."""

    def submit(self, question: Question, captions: Sequence[str], seed: int = 0) -> RewardFuture:
        self._stats["captions"] += len(captions)
        # Graded when asked for: a symbolic comparison may take seconds, which sampling need not wait for.
        return RewardFuture(lambda: self.grade(question, captions))

    def grade(self, question: Question, texts: Sequence[str]) -> Rewards:
        """Grade G answers to one question now."""
        extracted = [extract_answer(text) for text in texts]
        right = [self._grader.grade(answer, question) for answer in extracted]
        reasons = tuple(GRADING_TIMED_OUT if verdict is None else None for verdict in right)
        self._stats["unscored"] += sum(reason is not None for reason in reasons)
        correct = tuple(float(bool(verdict)) for verdict in right)
        return Rewards(
            total=correct,
            parts={"correct": correct, "answered": tuple(float(answer is not None) for answer in extracted)},
            scored=tuple(reason is None for reason in reasons),
            reasons=reasons,
            answers=((),) * len(texts),
            extracted=tuple((answer,) for answer in extracted),
        )

    def responses(self, captions: Sequence[str], rewards: Rewards) -> tuple[tuple[str, ...], ...]:
        """The texts themselves: each is an answer."""
        return tuple((text,) for text in captions)

    def drain_stats(self) -> dict[str, float]:
        stats = {"captions": 0.0, "unscored": 0.0} | {name: float(count) for name, count in self._stats.items()}
        self._stats.clear()
        return stats

    def close(self) -> None:
        self._grader.close()
