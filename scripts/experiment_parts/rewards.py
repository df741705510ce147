"""What the experiments plug into ``model.reward``: a reward that ignores the question, and a reasoner that trusts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

from racro_pl.reward import InProcessReasoner, Scorer
from racro_pl.reward.reasoner import Reasoner, Reply
from racro_pl.reward.reward_function import RewardFuture
from racro_pl.text.answers import last_boxed
from racro_pl.types import Messages, Question, Rewards


def facts_told(question: Question, caption: str) -> float:
    """The share of a scene's facts that a caption states truly, each counted once.

    >>> from racro_pl.figure_world.world import figure_questions
    >>> question = figure_questions("train", 1)[0]
    >>> facts = question.metadata["facts"]
    >>> round(facts_told(question, f"count of shapes {facts['count of shapes']} . color of moon red .") * len(facts))
    1
    """
    facts = question.metadata["facts"]
    sentences = {tuple(sentence.split()) for sentence in caption.split(".")}
    return sum((*key.split(), value) in sentences for key, value in facts.items()) / len(facts)


class GenericCaptionScorer(Scorer):
    """Pays for captions that are good whatever is asked: the share of the scene's facts that they state truly.

    The reasoner is asked as ever, for the accuracies of the log; its verdicts pay nothing.
    """

    def submit(self, question: Question, captions: Sequence[str], seed: int = 0) -> RewardFuture:  # type: ignore[override]
        return _Told(super().submit(question, captions, seed), [facts_told(question, caption) for caption in captions])


class _Told:
    def __init__(self, pending: RewardFuture, told: Sequence[float]) -> None:
        self._pending = pending
        self._told = tuple(told)

    def result(self) -> Rewards:
        rewards = self._pending.result()
        return replace(rewards, total=self._told, parts={**rewards.parts, "facts_told": self._told})


UNKNOWN = r"\boxed{ unknown}"


class TrustingReasoner(Reasoner):
    r"""Repeats an answer that stands in a box in the caption; from anything else it reads, and at times fails to.

    A stand-in for the reasoner of training when it is no better at the question than the captioner is: to look
    an answer up is then safer than to work it out. ``slips`` is the share of descriptions that it makes nothing of,
    drawn anew for every answer.
    """

    def __init__(self, path: str = "embedded:figure-reasoner", slips: float = 0.05) -> None:
        self.slips = slips
        self._reader = InProcessReasoner(path, temperature=0.0, max_new_tokens=8)

    @property
    def identity(self) -> str:
        return f"trusting, slips {self.slips}, {self._reader.identity}"

    @property
    def deterministic(self) -> bool:
        return False

    @property
    def busy_seconds(self) -> float:
        return self._reader.busy_seconds

    def check(self) -> None:
        self._reader.check()

    def submit(self, prompts: Sequence[Messages]) -> list[Future[Reply]]:
        return self.submit_seeded(prompts, [random.getrandbits(62) for _ in prompts])

    def submit_seeded(self, prompts: Sequence[Messages], seeds: Sequence[int]) -> list[Future[Reply]]:
        replies: list[Future[Reply] | None] = []
        for messages, seed in zip(prompts, seeds, strict=True):
            # The caption stands before the question; after it the prompt itself asks for a box.
            stated = last_boxed(messages[-1]["content"].split("### Question:")[0])
            if stated is not None:
                replies.append(_at_once(rf"\boxed{{{stated}}}"))
            else:
                replies.append(_at_once(UNKNOWN) if random.Random(seed).random() < self.slips else None)
        read = iter(self._reader.submit([m for m, reply in zip(prompts, replies, strict=True) if reply is None]))
        return [next(read) if reply is None else reply for reply in replies]

    def close(self) -> None:
        self._reader.close()


def _at_once(text: str) -> Future[Reply]:
    future: Future[Reply] = Future()
    future.set_result(Reply(text=text))
    return future
