"""What scoring one response gives: the small vocabulary that scoring, metrics and reports share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from racro_pl.types import Question

if TYPE_CHECKING:
    from racro_pl.reward.grader import Grader

Mode = Literal["direct", "caption", "caption+tentative"]
"""How a question is answered: by the captioner itself, by a reasoner from the caption, or from caption and tentative
answer."""


MAX_RESPONSE_CHARS = 200_000
"""Only the end of a longer response is scored: that is where its answer is, and rules must come back in time."""


@dataclass(frozen=True)
class Judgement:
    """A response as a scoring rule sees it."""

    extracted: str | None
    """What the rule took for the final answer; None when it found none, which is never right."""
    correct: bool


@dataclass(frozen=True)
class Outcome:
    """One scored question."""

    question: Question
    judgement: Judgement


class Judge(Protocol):
    """A language model that helps a rule to read responses."""

    def ask(self, prompt: str, sample: int = 0) -> str | None:
        """Its answer; ``sample`` counts repeated attempts at one prompt. None when it gave none in time."""


@dataclass(frozen=True)
class Tools:
    """What a rule may use beside the question and the response."""

    grader: Grader
    """Mathematical equality, bounded in time and memory."""
    judge: Judge | None = None
    """Only the rule ``vlmevalkit`` asks it, where VLMEvalKit would; without one those responses stay unextracted."""


Rule = Callable[[Question, str, Tools], Judgement]
"""Judges one response to one question."""


def scored_part(response: str) -> str:
    """The end of a response, at most ``MAX_RESPONSE_CHARS`` characters."""
    return response[-MAX_RESPONSE_CHARS:]
