"""What has to be done for some tables, as tasks: captioners to start from, runs, tests, and what else is measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from experiment_parts.evaluations import BEFORE, evaluations
from experiment_parts.runs import DESCRIBED, DESCRIBING, GENERAL, PENALTY, PREPARED, TABLES, Row, planned
from experiment_parts.schedule import Task


@dataclass(frozen=True)
class Measured:
    """What ``experiment_parts.measure`` finds out."""

    tables: tuple[str, ...]
    """That show it."""
    rows: tuple[Row, ...] = ()
    others: tuple[str, ...] = ()
    """Captioners that no run made."""


MEASURED = {
    "ceilings": Measured(("reckoning", "reckoning_narrow")),
    "captions": Measured(("penalty",), PENALTY),
    "described": Measured(("reckoning_described",), DESCRIBED, (DESCRIBING,)),
    "general": Measured(("reckoning_general",), GENERAL, (BEFORE,)),
}
UNKNOWN = 60.0
"""Seconds that are expected of a task which was never timed."""


def tasks_of(tables: Sequence[str], seeds: Sequence[int], out: Path, published: Mapping[str, Any]) -> list[Task]:
    """All that some tables need and that is not finished.

    Args:
        tables: their names.
        seeds: of every row.
        out: the folder of all runs.
        published: results with the seconds of earlier tasks.
    """
    rows = {row for table in tables for row in TABLES[table]}
    tasks = [
        Task(name, (f"experiment_parts.{name}", str(out / name), "--seed", "1"), 0)
        for name in PREPARED
        if any(row.starts_from(name) for row in rows)
    ]
    for run in planned(tables, seeds):
        after = {name for name in PREPARED if run.row.starts_from(name)}
        after |= {f"{run.row.after}-{run.seed}"} if run.row.after else set()
        tasks.append(Task(run.name, ("racro_pl", *run.options(out)), 0, frozenset(after)))
    for each in evaluations(tables):
        after = {run.name for run in each.runs(seeds)} | (PREPARED.keys() & set(each.others))
        write = partial(each.write_config, seeds, out)
        tasks.append(Task(each.name, each.command(out), 0, frozenset(after), write))
    for name, what in MEASURED.items():
        if set(what.tables) & set(tables):
            names = (*what.others, *(f"{row.name}-{seed}" for row in what.rows for seed in seeds))
            command = ("experiment_parts.measure", name, str(out), *names)
            tasks.append(Task(name, command, 0, frozenset(set(names) - {BEFORE})))
    left = {task.name for task in tasks if not _finished(task.name, out)}
    return [
        replace(task, seconds=expected(task.name, published), after=task.after & left)
        for task in tasks
        if task.name in left
    ]


def needed_by(table: str, seeds: Sequence[int]) -> set[str]:
    """Names of the tasks without which a table cannot be put together."""
    runs = {run.name for run in planned([table], seeds)}
    measured = {name for name, what in MEASURED.items() if table in what.tables}
    return runs | {each.name for each in evaluations([table])} | measured


def expected(name: str, published: Mapping[str, Any]) -> float:
    """Seconds of one core that a task takes: the least that one with any seed took, as a busy machine only adds."""
    used = [cost["cpu_seconds"] for other, cost in published.get("costs", {}).items() if _row(other) == _row(name)]
    timed = [run["seconds"] for other, run in published.get("runs", {}).items() if _row(other) == _row(name)]
    return float(min(used or timed or [UNKNOWN]))


def _row(name: str) -> str:
    stem, dash, seed = name.rpartition("-")
    return stem if dash and seed.isdigit() else name


def _finished(name: str, out: Path) -> bool:
    """Whether a run or a captioner to start from is there, with its cost; tests resume, the rest is done again."""
    if not (out / f"{name}.cost.json").is_file():
        return False
    if name in PREPARED:
        return (out / name / PREPARED[name]).is_dir()
    return any((out / name).glob("version_*/held_out.json"))


def costs(names: Iterable[str], out: Path) -> dict[str, dict[str, float]]:
    """By task: ``seconds`` on the clock and ``cpu_seconds``; of tasks that are finished."""
    files = {name: out / f"{name}.cost.json" for name in names}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}
