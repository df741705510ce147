"""From responses to a verdict: a rule judges each, the majority counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from racro_pl.evaluation.outcomes import Judgement, Rule, Tools
from racro_pl.text.comparison import quick_equal
from racro_pl.text.latex import normalize
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
    groups: list[list[Verdict]] = []
    for verdict in judged:
        extracted = verdict.judgement.extracted
        if extracted is None:
            continue
        same = (group for group in groups if _same(extracted, group[0].judgement.extracted or ""))
        group = next(same, None)
        if group is None:
            groups.append([verdict])
        else:
            group.append(verdict)
    # Of equal counts the first; the gold answer has no say in which answers are the same.
    return max(groups, key=len)[0] if groups else judged[0]


def _same(first: str, second: str) -> bool:
    return normalize(first).casefold() == normalize(second).casefold() or quick_equal(first, second) is True
