"""The reward of a text that describes and then answers: for the answer, and for the description by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from racro_pl.reward.own_answer import OwnAnswers
from racro_pl.reward.reasoner import Reasoner
from racro_pl.reward.reward_function import RewardFuture
from racro_pl.reward.scorer import Scorer
from racro_pl.reward.several import joined
from racro_pl.text.answers import before_box
from racro_pl.text.thoughts import without_thoughts
from racro_pl.types import Question, Rewards, require_all


class DescribedAnswers(Scorer):
    r"""``R = answer * correct + form * boxed + description * described``, for ``objective.name: qa``.

    ``correct``: the text's own last ``\boxed{}`` holds the gold answer. ``boxed``: there is one. ``described``: the
    reasoner, which sees neither the image nor the box, answers right from what stands before the first box (the share
    of its right votes). It is the self-consistency reward of Vision-SR1 (2025; code: zli12321/Vision-SR1), with its
    numbers as defaults, but for who reads: there it is the policy itself without its image, here a frozen reasoner, so
    the description cannot become a code between the two.

    What solves the question in words before the box is read as well, and paid.

    Parts: ``correct``, ``answered`` (``boxed``), ``described``, and ``empty`` (nothing stands before the box; the
    reasoner is not asked). A text for which one of the two verdicts is missing goes unscored.
    """

    def __init__(
        self, reasoner: Reasoner, answer: float = 0.9, form: float = 0.1, description: float = 1.0, **options: Any
    ) -> None:
        """
        Args:
            reasoner: Who reads the descriptions.
            answer: Weight of a right answer.
            form: Weight of a box, whatever it holds.
            description: Weight of a description that suffices.
            **options: A scorer's.
        """
        weights = {"answer": answer, "form": form, "description": description}
        require_all(
            "DescribedAnswers",
            *((weight >= 0, f"{name} is {weight}; expected 0 or more") for name, weight in weights.items()),
        )
        super().__init__(reasoner, **options)
        self.weights = weights
        self._own = OwnAnswers(grade_limit_s=options.get("grade_limit_s", 5.0))

    def submit(self, question: Question, captions: Sequence[str], seed: int = 0) -> RewardFuture:
        pending = super().submit(question, [description_of(text) for text in captions], seed)
        return RewardFuture(lambda: self.weigh(self._own.grade(question, captions), pending.result()))

    def weigh(self, own: Rewards, read: Rewards) -> Rewards:
        """One question's rewards from the verdicts on its texts' own answers and on their descriptions."""
        correct, boxed = own.parts["correct"], own.parts["answered"]
        self._stats["unscored"] += sum(not one and other for one, other in zip(own.scored, read.scored, strict=True))
        earned = tuple(
            self.weights["answer"] * right + self.weights["form"] * form
            for right, form in zip(correct, boxed, strict=True)
        )
        told = tuple(self.weights["description"] * described for described in read.total)
        return replace(
            joined([replace(own, total=earned), replace(read, total=told)], sum),
            parts={
                "correct": correct,
                "answered": boxed,
                "described": read.parts["correct"],
                "empty": read.parts["empty"],
            },
            answers=read.answers,
        )

    def responses(self, captions: Sequence[str], rewards: Rewards) -> tuple[tuple[str, ...], ...]:
        """The texts themselves: each is an answer."""
        return tuple((text,) for text in captions)

    def close(self) -> None:
        super().close()
        self._own.close()


def description_of(text: str) -> str:
    r"""What a text says before its first box, without a thinking captioner's thoughts.

    >>> description_of(r" red has 5 dots. \boxed{ 5}")
    ' red has 5 dots. '
    """
    return before_box(without_thoughts(text))
