"""The experiments with captions and own answers: what the captioner is taught, and the tables."""

from __future__ import annotations

import random

from experiment_parts import runs
from experiment_parts.evaluations import TENTATIVE
from experiment_parts.looking import answer_text
from experiment_parts.reckoning import REASONERS
from experiment_parts.report import tables

from racro_pl.reckoning_world.world import reckoning_questions
from racro_pl.text.answers import last_boxed


def test_an_answer_looks_first_or_is_a_guess():
    rng = random.Random(0)
    questions = reckoning_questions("train", 200)
    for question in questions:
        text = answer_text(question, 0.0, rng)
        assert last_boxed(text).strip() == question.answer
        assert all(f"{color} {question.metadata['dots'][color]}" in text for color in question.metadata["colors"])
    guesses = [answer_text(question, 1.0, rng) for question in questions]
    assert all(guess.startswith(" \\boxed{ ") for guess in guesses)
    right = sum(last_boxed(guess).strip() == q.answer for guess, q in zip(guesses, questions, strict=True))
    assert 20 < right < 60  # a half of a quarter, and one in nineteen of the rest


def test_the_tables_have_a_row_for_each_run_and_each_start():
    columns = ("direct", *REASONERS, *(name + TENTATIVE for name in REASONERS))
    names = [f"{row.name}-{seed}" for row in runs.JOINT for seed in (1, 2)]
    cells = {name: {key: index / 100 for index, key in enumerate(columns, start)} for start, name in enumerate(names)}
    cells[runs.LOOKING] = dict.fromkeys(columns, 0.25)
    found = tables({"tables": ["joint"], "seeds": [1, 2], "evaluation": cells})["joint"].splitlines()
    assert found[2] == "| before any training | 25.0 | 25.0 | 25.0 | 25.0 | 25.0 | 25.0 | 25.0 |"
    assert found[3].startswith("| CRO alone | 0.5 (0.0–1.0) | 1.5 (1.0–2.0) |")
    assert len(found) == 2 + 1 + len(runs.JOINT)
    del cells["looking_qa_cro-1"], cells["looking_qa_cro-2"]
    again = tables({"tables": ["joint"], "seeds": [1, 2], "evaluation": cells})["joint"]
    assert "| own answers, then CRO | not run | not run | not run | not run | not run | not run | not run |" in again
    figures = {"before": {"direct": 0.5, "figure-reasoner": 0.25, "figure-reasoner-b": 0.75}}
    figures["figure_joint-1"] = {"direct": 1.0, "figure-reasoner": 1.0, "figure-reasoner-b": 1.0}
    found = tables({"tables": ["joint_figures"], "seeds": [1], "evaluation": figures})["joint_figures"].splitlines()
    assert found[2:] == ["| before any training | 25.0 | 75.0 | 50.0 |", "| joint | 100.0 | 100.0 | 100.0 |"]
