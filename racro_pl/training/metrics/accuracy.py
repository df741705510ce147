"""Accuracy of the whole pipeline, by question type, with reduction over ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torchmetrics import Metric

from racro_pl.text.printable import printable
from racro_pl.types import Question, Rewards


class Shown(NamedTuple):
    """A caption and what it led to, for people."""

    caption: str
    found: str | None = None
    """The answer that the reasoner gave; of several votes, the first."""
    correct: float | None = None
    """Share of votes that were right; None where none came back, or where release 0.1.0 did not note it."""


@dataclass(frozen=True)
class Answered:
    """One question taken through the pipeline: greedy caption, reasoner, grade."""

    question: Question
    caption: str
    rewards: Rewards
    """Of the one caption."""
    audit: Mapping[str, float]
    """What the data set can tell about the caption itself, by name; empty for most data sets."""

    @property
    def correct(self) -> float | None:
        """Share of the reasoner's votes that were right; None when no vote came back."""
        return self.rewards.parts["correct"][0] if self.rewards.scored[0] else None

    @property
    def shown(self) -> Shown:
        """Caption and verdict."""
        votes = self.rewards.extracted[0]
        return Shown(self.caption, votes[0] if votes else None, self.correct)


class PipelineAccuracy(Metric):
    """Accuracy over the questions that could be scored, overall and by type, beside the captions' own audit.

    Args:
        categories: every question type of the split (the same list on every rank).
        audits: names of the audit metrics that the data set reports.
    """

    full_state_update = False

    def __init__(self, categories: Sequence[str], audits: Sequence[str]) -> None:
        super().__init__()
        self.categories = tuple(categories)
        self.audits = tuple(audits)
        for name, size in (("correct", len(self.categories)), ("scored", len(self.categories)),
                           ("audited", len(self.audits)), ("questions", 1)):  # fmt: skip
            self.add_state(name, torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.correct: torch.Tensor
        self.scored: torch.Tensor
        self.audited: torch.Tensor
        self.questions: torch.Tensor

    def update(self, answered: Answered) -> None:
        """Count one question."""
        self.questions += 1
        for index, name in enumerate(self.audits):
            self.audited[index] += answered.audit[name]
        if answered.correct is not None:
            category = self.categories.index(answered.question.category)
            self.correct[category] += answered.correct
            self.scored[category] += 1

    @property
    def names(self) -> list[str]:
        """What :meth:`compute` gives."""
        by_type = [f"accuracy/{printable(name)}" for name in self.categories] if len(self.categories) > 1 else []
        return ["accuracy", "unscored_share", "questions", *self.audits, *by_type]

    def compute(self) -> dict[str, float]:
        """``accuracy``, ``accuracy/<type>``, ``unscored_share``, ``questions`` and the audit's means.

        The accuracy of what nothing was scored for is NaN: no score is not a zero score.
        """
        total = max(float(self.questions), 1.0)
        scored = float(self.scored.sum())
        result = {
            "accuracy": float(self.correct.sum()) / scored if scored else math.nan,
            "unscored_share": 1.0 - scored / total,
            "questions": float(self.questions),
        }
        result |= dict(zip(self.audits, (self.audited / total).tolist(), strict=True))
        if len(self.categories) > 1:
            shares = (self.correct / self.scored).tolist()  # 0 / 0 is NaN
            for category, share in zip(self.categories, shares, strict=True):
                result[f"accuracy/{printable(category)}"] = share
        return result


def percent(share: float) -> str:
    """A share for people; that of what nothing was scored for is a dash."""
    return f"{share:.1%}" if math.isfinite(share) else "–"
