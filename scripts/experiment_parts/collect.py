"""From finished tasks to figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiment_parts.curves import READERS
from experiment_parts.evaluations import accuracies, evaluations
from experiment_parts.reckoning import reader_curves, sheet
from experiment_parts.runs import PREPARED, RECKONING, Run, planned
from experiment_parts.tasks import MEASURED, costs


def accuracy_by_step(folder: Path) -> dict[int, float]:
    """A run's validation accuracy by the step that it was measured after; step 0 and the last from all 500."""
    figures = json.loads((folder / "held_out.json").read_text())
    curve = {0: figures["before"]["accuracy"]}
    last = 0
    with (folder / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            last = max(last, int(row["step"]) + 1)  # the axis begins at 0
            if row.get("val/accuracy"):
                curve[last] = float(row["val/accuracy"])
    return curve | {last: figures["after"]["accuracy"]}


def held_out(run: Run, out: Path) -> dict[str, Any]:
    """A finished run: held-out figures before and after, the curve, those of further readers if noted, seconds."""
    folder = run.folder(out)
    assert folder is not None, f"{run.name} is not finished"
    figures = json.loads((folder / "held_out.json").read_text())
    curve = sorted(accuracy_by_step(folder).items())
    readers = {"readers": reader_curves(folder, curve)} if (folder / READERS).is_file() else {}
    return figures | {"curve": curve, "seconds": round(costs([run.name], out)[run.name]["seconds"])} | readers


def collect(tables: Sequence[str], seeds: Sequence[int], out: Path) -> dict[str, Any]:
    """All figures of tables whose tasks are finished.

    Returns:
        ``runs`` by name, ``evaluation`` by captioner, ``sheet``, what is measured besides by its name, and ``costs`` by
        task.
    """
    runs = sorted(planned(tables, seeds), key=lambda run: run.name)
    results: dict[str, Any] = {"seeds": list(seeds), "tables": list(tables)}
    results["runs"] = {run.name: held_out(run, out) for run in runs}
    tests = {test.name: test.folder(out) for test in evaluations(tables)}
    results["evaluation"] = {name: found for test in tests.values() for name, found in accuracies(test).items()}
    results["sheet"] = {}
    if "reckoning" in tables:
        shown = [tests["evaluation_reckoning_before"], tests["evaluation_reckoning"]]
        results["sheet"] = sheet(shown, Run(RECKONING[0], seeds[0]).name)
    for name, what in MEASURED.items():
        found = json.loads((out / f"{name}.json").read_text()) if set(what.tables) & set(tables) else {}
        results[name] = found
    results["costs"] = costs([*results["runs"], *tests, *PREPARED, *MEASURED], out)
    return results
