"""Several questions about one picture: captions that serve more than the question they were written for."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from racro_pl.reward.reasoner import Reasoner
from racro_pl.reward.reward_function import RewardFuture
from racro_pl.reward.scorer import Scorer
from racro_pl.reward.several import joined, mean
from racro_pl.reward.unscored import count_reasons
from racro_pl.seeds import seed_for
from racro_pl.text.choices import LETTERS, without_choices
from racro_pl.types import Question, Rewards, require

CANNOT_ANSWER = "cannot be answered from the caption"


class SeveralQuestions(Scorer):
    """``R = mean_k R_k`` over the caption's own question and ``others`` further ones about the same images.

    As in CapRL (2025; trainer: InternLM/CapRL, CapRL++), where every caption is asked eight times, each time a question
    drawn from its image's pool, with its options shuffled and one more, "cannot be answered". Differences: captions
    here are written for a question, which is always one of those asked; it counts as every other, its options stay as
    they are, and each other question is drawn once at most. There is no length term: a caption's length is bounded by
    ``max_new_tokens``.

    The further questions are drawn again in every step, the same for all captions of a group. Questions of the training
    data share their images when they name the same file. Where there are none, as in validation, the caption's own
    question is all that is asked.

    Parts, beside a scorer's own, which are about the caption's own question: ``others``, the mean over the further
    ones (0 without any). A caption of which any question has no verdict goes unscored: means over those that happened
    to be answered would compare captions by different questions.
    """

    def __init__(self, reasoner: Reasoner, others: int = 3, **options: Any) -> None:
        """
        Args:
            reasoner: Who answers.
            others: Further questions for every caption; fewer where the images have fewer.
            **options: A scorer's.
        """
        require(others >= 1, f"others={others}", "at least 1; for none, use Scorer")
        super().__init__(reasoner, **options)
        self.others = others

    def submit(self, question: Question, captions: Sequence[str], seed: int = 0) -> RewardFuture:
        rng = random.Random(seed_for(seed, question.id))
        others = [other for other in question.pool if other.id != question.id]
        drawn = rng.sample(others, min(self.others, len(others)))
        asked = [question, *(shuffled(other, rng) for other in drawn)]
        waiting = [super(SeveralQuestions, self).submit(each, captions, seed) for each in asked]
        self._stats["captions"] -= len(captions) * len(drawn)  # counted once
        return RewardFuture(lambda: self._together([future.result() for future in waiting]))

    def _together(self, each: Sequence[Rewards]) -> Rewards:
        """The captions' rewards; one that lacks several verdicts is one caption without a score."""
        rewards = over_questions(each)
        counted = Counter(kind for one in each for kind in count_reasons(one.reasons).elements())
        for kind, count in (counted - count_reasons(rewards.reasons)).items():
            self._stats["unscored"] -= count
            self._stats[f"unscored/{kind}"] -= count
        return rewards


def over_questions(each: Sequence[Rewards]) -> Rewards:
    """The rewards of captions from what they earned with each question, their own first."""
    own, *others = each
    further = tuple(mean(values) for values in zip(*(rewards.total for rewards in others), strict=True))
    return replace(joined(each), parts={**own.parts, "others": further or (0.0,) * len(own.total)})


def shuffled(question: Question, rng: random.Random) -> Question:
    """The question with its options in another order, and "cannot be answered" after them.

    As it is: an open question, and one whose text or picture names its options, which would keep the old order.
    """
    text = without_choices(question.text, question.choices) if question.choices else None
    if text is None:
        return question
    order = rng.sample(range(len(question.choices)), len(question.choices))
    gold = order.index(LETTERS.index(question.answer)) if question.answer_type == "choice" else None
    return replace(
        question,
        text=text,
        choices=(*(question.choices[place] for place in order), CANNOT_ANSWER),
        answer=question.answer if gold is None else LETTERS[gold],
    )
