"""The reckoning world's experiment: one training with the weak reasoner, three reasoners that read, and controls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiment_parts.curves import READERS
from experiment_parts.evaluations import BEFORE
from racro_pl.data.benchmarks import find_benchmark
from racro_pl.reckoning_world.world import sentence_key, true_caption
from racro_pl.reward import InProcessReasoner, Scorer
from racro_pl.reward.reward_function import RewardFuture
from racro_pl.text.answers import extract_answer
from racro_pl.types import Question, Rewards

REASONERS = ("reckoning-weak", "reckoning-middle", "reckoning-strong")
NARROW, STRONG = "reckoning-narrow", "reckoning-strong"
SHEET = 8
"""Questions of the sheet of captions: two of each type."""


class GenericCaptionScorer(Scorer):
    """Pays for captions that are good whatever is asked: the share of the scene's facts that they state truly.

    The reasoner is asked as ever, for the accuracies of the log; its verdicts pay nothing.
    """

    def submit(self, question: Question, captions: Sequence[str], seed: int = 0) -> RewardFuture:
        pending = super().submit(question, captions, seed)
        told = tuple(facts_told(question, caption) for caption in captions)

        def pay() -> Rewards:
            rewards = pending.result()
            return replace(rewards, total=told, parts={**rewards.parts, "facts_told": told})

        return RewardFuture(pay)


def facts_told(question: Question, caption: str) -> float:
    """The share of a scene's facts that a caption states truly, each counted once.

    >>> from racro_pl.reckoning_world.world import reckoning_questions
    >>> question = reckoning_questions("train", 1)[0]
    >>> told = question.metadata["sentences"]
    >>> facts_told(question, f"{told['shade']} {told['shade']} red is blue.") == 1 / len(told)
    True
    """
    told = question.metadata["sentences"]
    keys = {sentence_key(sentence) for sentence in caption.split(".")}
    return sum(item in keys for item in told.items()) / len(told)


def ceilings() -> dict[str, dict[str, float]]:
    """Accuracy of each reasoner on the 500 test questions with captions that are all true, in all and by type."""
    questions = find_benchmark("reckoning").read().questions
    found = {}
    for name in (*REASONERS, NARROW):
        scorer = Scorer(InProcessReasoner(f"embedded:{name}", temperature=0.0, max_new_tokens=22), cache="off")
        waiting = [scorer.submit(question, [f" {true_caption(question)}"]) for question in questions]
        right = [rewards.result().parts["correct"][0] for rewards in waiting]
        scorer.close()
        found[name] = {"accuracy": sum(right) / len(right)}
        for kind in sorted({question.category for question in questions}):
            of_kind = [one for one, question in zip(right, questions, strict=True) if question.category == kind]
            found[name][f"accuracy/{kind}"] = sum(of_kind) / len(of_kind)
    return found


def sheet(evaluations: Sequence[Path], run: str, count: int = SHEET) -> dict[str, Any]:
    """The first test questions, two of each type, with the captions of before and after and the reasoners' answers.

    Args:
        evaluations: folders of the tests of the captioner as it comes and of the run's.
        run: name of the captioner of after.
        count: how many questions.

    Returns:
        By question id: ``before`` and ``after``, each with ``caption`` and ``answers`` by reasoner (None for none).
    """
    told: dict[str, dict[str, Any]] = {one.id: {} for one in find_benchmark("reckoning").read().questions[:count]}
    for row in (row for folder in evaluations for row in _records(folder / "captions.jsonl")):
        when = {BEFORE: "before", run: "after"}.get(row["captioner"])
        if when and row["task"] == "caption" and row["id"] in told:
            told[row["id"]][when] = {"caption": row["text"], "answers": {}}
    for row in (row for folder in evaluations for row in _records(folder / "answers.jsonl")):
        when = {BEFORE: "before", run: "after"}.get(row["captioner"])
        if when and row["mode"] == "caption" and row["id"] in told:
            told[row["id"]][when]["answers"][row["reasoner"]] = extract_answer(row["text"])
    return told


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        yield from map(json.loads, file)


def reader_curves(folder: Path, trained: Sequence[tuple[int, float]]) -> dict[str, list[tuple[int, float]]]:
    """Accuracy by step of a run's reasoner of training and of those that only read, ends from the 500 test questions.

    Args:
        folder: the run's; :class:`~experiment_parts.curves.ReaderCurves` wrote there.
        trained: the curve of the reasoner of training.
    """
    figures = json.loads((folder / "held_out.json").read_text())
    curves: dict[str, dict[int, float]] = {name: {} for name in REASONERS[1:]}
    for line in _records(folder / READERS):
        for name, curve in curves.items():
            curve[line["step"]] = line[name]
    for name, curve in curves.items():
        curve[0] = figures["before"][f"{name}: accuracy"]
        curve[max(curve)] = figures["after"][f"{name}: accuracy"]
    return {REASONERS[0]: list(trained)} | {name: sorted(curve.items()) for name, curve in curves.items()}
