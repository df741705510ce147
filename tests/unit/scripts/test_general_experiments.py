"""Captions that are read for a question that they were not written for: the table, and the question."""

from __future__ import annotations

import random

from experiment_parts import runs
from experiment_parts.evaluations import BEFORE
from experiment_parts.general import another_question
from experiment_parts.report import tables

from racro_pl.reckoning_world.world import audit_caption, reckoning_questions, work_out


def test_the_general_table_reads_captions_for_two_questions():
    keys = [name + other for other in ("", ", another question") for name in ("reckoning-weak", "reckoning-strong")]
    names = [BEFORE, *(f"{row.name}-{seed}" for row in runs.GENERAL for seed in (1, 2))]
    found = {
        name: {key: (place + column) / 20 for column, key in enumerate([*keys, "true_sentences"])}
        for place, name in enumerate(names)
    }
    block = tables({"seeds": [1, 2], "tables": ["reckoning_general"], "general": found})["reckoning_general"]
    assert "|  | weak | strong | weak, another question | strong, another question | true sentences |" in block
    assert "| before | 0.0 | 5.0 | 10.0 | 15.0 | 20.0 |" in block
    assert "| paid for the question alone | 7.5 (5.0–10.0) | 12.5 (10.0–15.0) |" in block
    assert block.count("\n") == 3 + len(runs.GENERAL) - 1


def test_another_question_is_about_the_same_picture():
    for place, question in enumerate(reckoning_questions("test", 40)):
        other = another_question(question, random.Random(place))
        assert other.images == question.images
        assert other.text != question.text
        told = question.metadata["sentences"]
        assert audit_caption(
            other, " ".join(told[f"dots of {color}"] for color in other.metadata["colors"])
        ).asked_stated
        reply = work_out(
            other.category, other.metadata["colors"], [other.metadata["dots"][c] for c in other.metadata["colors"]]
        )
        assert other.answer == reply
