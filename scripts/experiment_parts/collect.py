"""From run folders to figures: curves, evaluations of finished captioners, and what captions were like on the way."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiment_parts.curves import READERS
from experiment_parts.described import evaluate_described
from experiment_parts.general import evaluate_general
from experiment_parts.joint import starts
from experiment_parts.reckoning import BEFORE, accuracies, ceilings, evaluate_reckoning, reader_curves, sheet
from experiment_parts.rewards import facts_told
from experiment_parts.runs import (
    DESCRIBED,
    DESCRIBING,
    GENERAL,
    HABIT,
    JOINT,
    PENALTY,
    RECKONING,
    RECKONING_CONTROLS,
    RECKONING_NARROW,
    ROOT,
    TABLES,
    Run,
    execute,
)
from racro_pl.data import FigureWorldReader
from racro_pl.reward import InProcessReasoner
from racro_pl.reward.grader import Grader
from racro_pl.text.answers import extract_answer, last_boxed
from racro_pl.text.reasoner_prompt import reasoner_messages
from racro_pl.types import Question

COMPARED = ("against", "penalty", "joint_figures")
"""Tables whose captioners are tested on the figure world."""
EVERY = 5
"""Steps between those that are looked at."""


def accuracy_by_step(folder: Path) -> dict[int, float]:
    """A run's validation accuracy by the step that it was measured after; step 0 and the last from all 500."""
    figures = json.loads((folder / "held_out.json").read_text())
    curve = {0: figures["before"]["accuracy"]}
    with (folder / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row.get("val/accuracy"):
                curve[int(row["step"]) + 1] = float(row["val/accuracy"])  # the axis begins at 0
    curve[max(curve)] = figures["after"]["accuracy"]
    return curve


def held_out(folder: Path) -> dict[str, Any]:
    """A finished run: held-out figures before and after, the curve, those of further readers if noted, seconds."""
    log = folder.parent.with_name(f"{folder.parent.name}.log").read_text().split()
    figures = json.loads((folder / "held_out.json").read_text())
    curve = sorted(accuracy_by_step(folder).items())
    readers = {"readers": reader_curves(folder, curve)} if (folder / READERS).is_file() else {}
    return figures | {"curve": curve, "seconds": int(log[-2])} | readers


def evaluate(runs: Sequence[Run], out: Path) -> dict[str, dict[str, float]]:
    """``racro-pl test`` of captioners on the 500 test questions, alone and through both embedded reasoners.

    Returns:
        By captioner (``before``, ``habit``, or a run's name): accuracy by ``direct`` or the reasoner's name.
    """
    captioners = {"before": "embedded:figure-captioner"} | {run.name: str(run.folder(out)) for run in runs}
    settings: dict[str, Any] = yaml.safe_load((ROOT / "configs/test_figures.yaml").read_text())
    limits = {key: value for key, value in settings["captioners"][0].items() if key not in ("name", "path")}
    settings["captioners"] = [{"name": name, "path": path, **limits} for name, path in captioners.items()]
    if any(run.row in PENALTY for run in runs):
        settings["captioners"].append({"name": HABIT, "path": str(out / HABIT / "adapter"), **limits})
    settings |= {"name": "evaluation", "modes": ["direct", "caption"]}
    config = out / "evaluation.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    command = [sys.executable, "-m", "racro_pl", "test", "--config", str(config), "--runs", str(out)]
    execute(command, out / "evaluation.log")
    newest = max((out / "evaluation").glob("version_*/results.json"), key=lambda file: file.stat().st_mtime)
    accuracies: dict[str, dict[str, float]] = {}
    for cell in json.loads(newest.read_text())["cells"]:
        system = cell["system"]
        accuracies.setdefault(system["captioner"], {})[system["reasoner"] or "direct"] = cell["headline"]
    return accuracies


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


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean of at least one value."""
    listed = list(values)
    return sum(listed) / len(listed)


def collect(tables: Sequence[str], seeds: Sequence[int], out: Path) -> dict[str, Any]:
    """All figures of finished runs: ``runs`` by name, ``evaluation``, ``ceilings``, ``captions`` and ``sheet``."""
    wanted = {Run(row, seed) for table in tables for row in TABLES[table] for seed in seeds}
    runs = sorted(wanted, key=lambda run: run.name)
    folders = {run: folder for run in runs if (folder := run.folder(out)) is not None}
    compared = [run for run in runs if any(run.row in TABLES[table] for table in tables if table in COMPARED)]
    results: dict[str, Any] = {"seeds": list(seeds), "tables": list(tables)}
    results["runs"] = {run.name: held_out(folder) for run, folder in folders.items()}
    results["evaluation"] = evaluate(compared, out) if compared else {}
    results["ceilings"] = ceilings() if any(run.row in (*RECKONING_CONTROLS, *RECKONING_NARROW) for run in runs) else {}
    both = [run for run in runs if run.row in JOINT and run in folders]
    if both:
        results["evaluation"] |= accuracies(evaluate_reckoning(both, out, starts(both, out), "evaluation_joint"))
    drawn = [run for run in runs if run.row in RECKONING_CONTROLS]
    results["sheet"] = {}
    if drawn:
        evaluation = evaluate_reckoning(drawn, out)
        results["evaluation"] |= accuracies(evaluation)
        results["sheet"] = sheet(evaluation, Run(RECKONING[0], seeds[0]).name)
    described = {run.name: str(folder / "adapter") for run, folder in folders.items() if run.row in DESCRIBED}
    if described:
        described |= {DESCRIBING: str(out / DESCRIBING / "adapter")}
    results["described"] = {name: evaluate_described(adapter) for name, adapter in described.items()}
    general = {run.name: str(folder / "adapter") for run, folder in folders.items() if run.row in GENERAL}
    adapters: dict[str, str | None] = {BEFORE: None, **general} if general else {}
    results["general"] = {name: evaluate_general(adapter) for name, adapter in adapters.items()}
    results["captions"] = {}
    if "penalty" in tables:
        looker = Looker()
        try:
            results["captions"] = {run.name: looker.look(folders[run]) for run in runs if run.row in PENALTY}
        finally:
            looker.close()
    return results
