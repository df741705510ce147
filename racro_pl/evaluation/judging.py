"""From responses to a verdict: a rule judges each, the majority counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from racro_pl.evaluation.outcomes import Judgement, Rule, Tools
from racro_pl.text.equality import normalize
from racro_pl.types import Question


@dataclass(frozen=True)
class Verdict:
    """A system's answer to one question, judged."""

    response: str
    """Of several samples, the first whose answer is the majority's."""
    judgement: Judgement


def judge_responses(rule: Rule, question: Question, responses: Sequence[str], tools: Tools) -> Verdict | None:
    """The verdict on the answer that most responses give (of equally many, the first given).

    A response without an answer has no vote, unless none has one.

    Returns:
        None when there is no response.
    """
    if not responses:
        return None
    judged = [Verdict(response, rule(question, response, tools)) for response in responses]
    votes = Counter(_vote(verdict) for verdict in judged if verdict.judgement.extracted is not None)
    if not votes:
        return judged[0]
    # Of equal counts the first; the gold answer has no say in which answers are the same.
    winner = votes.most_common(1)[0][0]
    return next(verdict for verdict in judged if _vote(verdict) == winner)


def _vote(verdict: Verdict) -> str | None:
    extracted = verdict.judgement.extracted
    return None if extracted is None else normalize(extracted).casefold()
