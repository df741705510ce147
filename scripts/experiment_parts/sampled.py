"""What captions were like on the way: those that training sampled, by step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiment_parts.layout import mean
from experiment_parts.rewards import facts_told
from racro_pl.data import FigureWorldReader
from racro_pl.reward import InProcessReasoner
from racro_pl.reward.grader import Grader
from racro_pl.text.answers import extract_answer, last_boxed
from racro_pl.text.reasoner_prompt import reasoner_messages
from racro_pl.types import Question

EVERY = 5
"""Steps between those that are looked at."""


class Looker:
    """Says of sampled captions what share describes, and what a reasoner makes of them that training never asked."""

    def __init__(self) -> None:
        self._questions = {question.id: question for question in FigureWorldReader().read("train").questions}
        self._reader = InProcessReasoner("embedded:figure-reasoner-b", temperature=0.0, max_new_tokens=8)
        self._grader = Grader(5.0)

    def close(self) -> None:
        """End the grader's worker and let the reasoner go."""
        self._grader.close()
        self._reader.close()

    def look(self, folder: Path) -> list[dict[str, float]]:
        """The first step of a run and every fifth, as shares of its sampled captions.

        ``describes``: state some fact of the scene truly, which has nothing to do with the judge that VPO trains with;
        ``trained``: were right by the reasoner of training; ``reader``: by the reasoner that only reads;
        ``trusting``: by the same where an answer in a box is taken as it stands.
        """
        by_step: dict[int, list[dict[str, Any]]] = {}
        with (folder / "captions.jsonl").open() as file:
            for line in file:
                row = json.loads(line)
                if row["step"] == 1 or row["step"] % EVERY == 0:
                    by_step.setdefault(row["step"], []).append(row)
        return [{"step": step, **self._metrics(rows)} for step, rows in sorted(by_step.items())]

    def _metrics(self, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
        futures = self._reader.submit([reasoner_messages(row["question"], row["caption"]) for row in rows])
        replies = [future.result().text or "" for future in futures]
        read = [self._right(extract_answer(reply), row) for reply, row in zip(replies, rows, strict=True)]
        boxes = [last_boxed(row["caption"]) for row in rows]
        trusted = [
            right if box is None else self._right(box, row) for right, box, row in zip(read, boxes, rows, strict=True)
        ]
        return {
            "describes": mean(facts_told(self._questions[row["question_id"]], row["caption"]) > 0 for row in rows),
            "trained": mean(row["parts"]["correct"] for row in rows),
            "reader": mean(read),
            "trusting": mean(trusted),
        }

    def _right(self, answer: str | None, row: dict[str, Any]) -> bool:
        question: Question = self._questions[row["question_id"]]
        return bool(self._grader.grade(answer, question))
