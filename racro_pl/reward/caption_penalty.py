"""RAPID's caption penalty: a right answer is worth less when what led to it was no caption but a solution.

Without it the captioner finds out that the surest way to a right answer is to solve the question in the caption, and
descriptions, the very thing that other reasoners are to be given, die out ("Visual Perception Optimization", ICLR
2026, the second version of RACRO).
"""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from racro_pl.reward.reasoner import Reasoner
from racro_pl.reward.reward_function import RewardFunction, RewardFuture
from racro_pl.seeds import seed_for
from racro_pl.text.caption_judge import describes, judge_messages, read_verdict
from racro_pl.text.thoughts import without_thoughts
from racro_pl.types import Question, Rewards

NO_VERDICT = "caption judge: no verdict"

Verdicts = Callable[[], Sequence[bool | None]]
"""To be called for the verdicts on one question's texts: whether each has a caption; None without a verdict."""


class CaptionJudge(abc.ABC):
    """Tells whether a text contains a description of the image."""

    @abc.abstractmethod
    def submit(self, question: Question, texts: Sequence[str]) -> Verdicts:
        """Begin to judge, without waiting."""


class RuleJudge(CaptionJudge):
    """A rule of words (``text/caption_judge.py``): free, instant, and easy for a policy to learn to please."""

    def submit(self, question: Question, texts: Sequence[str]) -> Verdicts:
        verdicts = [describes(text) for text in texts]
        return lambda: verdicts


class ReasonerJudge(CaptionJudge):
    """A reasoner is asked, one further call per caption, at the same time as it answers from the caption.

    Args:
        reasoner: a sampling one may judge the same text differently at another time.
    """

    def __init__(self, reasoner: Reasoner) -> None:
        self.reasoner = reasoner

    def submit(self, question: Question, texts: Sequence[str]) -> Verdicts:
        # Equal texts are asked about once, and get one verdict; an empty one needs no asking.
        written = list(dict.fromkeys(text for text in texts if text.strip()))
        replies = self.reasoner.submit_seeded(
            [judge_messages(question.text, text) for text in written],
            [seed_for(question.id, text) for text in written],
        )
        waiting = dict(zip(written, replies, strict=True))

        def verdict(text: str) -> bool | None:
            if text not in waiting:
                return False
            reply = waiting[text].result().text
            return None if reply is None else read_verdict(reply)

        return lambda: [verdict(text) for text in texts]


class CaptionPenalty(RewardFunction):
    """``R = R0 - penalty * correct * 1[the text has no caption]``, with ``R0`` and ``correct`` of another reward.

    For one vote ``correct`` is 0 or 1 and this is the paper's ``R - lambda * 1[correct and no caption]``; with votes
    the penalty is proportional to the share of right ones. A caption that earned nothing is never judged against.
    Where the judge has no verdict on a caption that earned something, the caption goes unscored. Parts, beside the
    reward's own: ``has_caption`` (0 where there is no verdict) and ``penalty``.

    Args:
        reward: gives the reward to take from.
        judge: says what has a caption.
        penalty: lambda; the paper's is 0.1.
    """

    def __init__(self, reward: RewardFunction, judge: CaptionJudge, penalty: float = 0.1) -> None:
        self.reward = reward
        self.judge = judge
        self.penalty = penalty
        self.max_unscored_share = reward.max_unscored_share
        self.budget = reward.budget
        self.answers_questions = reward.answers_questions
        self.max_answerless_steps = reward.max_answerless_steps
        self._stats: Counter[str] = Counter()

    def check(self) -> None:
        self.reward.check()

    def submit(self, question: Question, captions: Sequence[str], seed: int = 0) -> RewardFuture:
        # The reward first: its answers take longer.
        pending = self.reward.submit(question, captions, seed)
        # The judge reads what the reasoner reads.
        verdicts = self.judge.submit(question, [without_thoughts(text) for text in captions])
        return RewardFuture(lambda: self.penalise(pending.result(), verdicts()))

    def penalise(self, rewards: Rewards, verdicts: Sequence[bool | None]) -> Rewards:
        """The rewards of one question's captions with the penalty taken off."""
        correct = rewards.parts["correct"]
        unknown = [
            scored and verdict is None and earned > 0
            for scored, verdict, earned in zip(rewards.scored, verdicts, correct, strict=True)
        ]
        penalties = tuple(
            self.penalty * earned if scored and verdict is False else 0.0
            for scored, verdict, earned in zip(rewards.scored, verdicts, correct, strict=True)
        )
        self._stats["judged"] += sum(verdict is not None for verdict in verdicts)
        self._stats["without_caption"] += sum(verdict is False for verdict in verdicts)
        self._stats["unscored"] += sum(unknown)
        return replace(
            rewards,
            total=tuple(total - penalty for total, penalty in zip(rewards.total, penalties, strict=True)),
            parts={
                **rewards.parts,
                "has_caption": tuple(float(verdict is True) for verdict in verdicts),
                "penalty": penalties,
            },
            scored=tuple(was and not lost for was, lost in zip(rewards.scored, unknown, strict=True)),
            reasons=tuple(
                NO_VERDICT if lost else reason for reason, lost in zip(rewards.reasons, unknown, strict=True)
            ),
        )

    def responses(self, captions: Sequence[str], rewards: Rewards) -> tuple[tuple[str, ...], ...]:
        """The reward's own."""
        return self.reward.responses(captions, rewards)

    @property
    def spent(self) -> float:
        return self.reward.spent

    def drain_stats(self) -> dict[str, float]:
        """The reward's, with ``judged`` captions and those ``without_caption`` among them."""
        stats = {"judged": 0.0, "without_caption": 0.0} | self.reward.drain_stats()
        for name, count in self._stats.items():
            stats[name] = stats.get(name, 0.0) + count
        self._stats.clear()
        return stats

    def close(self) -> None:
        self.reward.close()
