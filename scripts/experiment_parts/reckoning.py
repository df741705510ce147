"""The reckoning world's experiment: one training with the weak reasoner, three reasoners that read, and controls."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from experiment_parts.runs import ROOT, Run, execute
from racro_pl.data.benchmarks import find_benchmark
from racro_pl.reckoning_world.world import sentence_key, true_caption
from racro_pl.reward import InProcessReasoner, Scorer
from racro_pl.reward.reward_function import RewardFuture
from racro_pl.types import Question, Rewards

REASONERS = ("reckoning-weak", "reckoning-middle", "reckoning-strong")
TENTATIVE = " + tentative"
BEFORE = "reckoning_before"
"""The captioner as it comes, in an evaluation."""


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
    for name in REASONERS:
        scorer = Scorer(InProcessReasoner(f"embedded:{name}", temperature=0.0, max_new_tokens=22), cache="off")
        waiting = [scorer.submit(question, [f" {true_caption(question)}"]) for question in questions]
        right = [rewards.result().parts["correct"][0] for rewards in waiting]
        scorer.close()
        found[name] = {"accuracy": sum(right) / len(right)}
        for kind in sorted({question.category for question in questions}):
            of_kind = [one for one, question in zip(right, questions, strict=True) if question.category == kind]
            found[name][f"accuracy/{kind}"] = sum(of_kind) / len(of_kind)
    return found


def evaluate_reckoning(runs: Sequence[Run], out: Path) -> dict[str, dict[str, float]]:
    """``racro-pl test`` of captioners on the 500 test questions, alone and through all reasoners.

    Returns:
        By captioner (:data:`BEFORE`, or a run's name): accuracy by ``direct``, by the reasoner's name, and by that with
        :data:`TENTATIVE`.
    """
    captioners = {BEFORE: "embedded:reckoning-captioner"} | {run.name: str(run.folder(out)) for run in runs}
    settings: dict[str, Any] = yaml.safe_load((ROOT / "configs/test_reckoning.yaml").read_text())
    limits = {key: value for key, value in settings["captioners"][0].items() if key not in ("name", "path")}
    settings["captioners"] = [{"name": name, "path": path, **limits} for name, path in captioners.items()]
    settings["name"] = "evaluation_reckoning"
    config = out / "evaluation_reckoning.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    command = [sys.executable, "-m", "racro_pl", "test", "--config", str(config), "--runs", str(out)]
    execute(command, out / "evaluation_reckoning.log")
    newest = max((out / settings["name"]).glob("version_*/results.json"), key=lambda file: file.stat().st_mtime)
    accuracies: dict[str, dict[str, float]] = {}
    for cell in json.loads(newest.read_text())["cells"]:
        system = cell["system"]
        key = (system["reasoner"] or "direct") + (TENTATIVE if system["mode"] == "caption+tentative" else "")
        accuracies.setdefault(system["captioner"], {})[key] = cell["headline"]
    return accuracies
