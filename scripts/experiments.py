"""Every experiment of docs/experiments.md, unattended: runs, evaluations, tables and pictures.

    python scripts/experiments.py --publish

makes all runs (those that a stopped call left finished are kept), tests the captioners and writes the tables and
pictures to OUT; with --publish also into docs/experiments.md and README.md. All of it is one queue for --jobs processes
of one thread. What fails keeps back its own table: the others are written, and the status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

# Read when torch loads, here and in all forks: every task has one thread, and idle threads must not spin.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from experiment_parts.collect import collect  # noqa: E402
from experiment_parts.report import PICTURES, fill, merged, tables  # noqa: E402
from experiment_parts.runs import ROOT, TABLES, newest  # noqa: E402
from experiment_parts.schedule import Task, carry_out, end_with_tasks, forked, plan  # noqa: E402
from experiment_parts.tasks import needed_by, tasks_of  # noqa: E402

PUBLISHED = ROOT / "docs/results/experiments.json"
PRELOADED = ("racro_pl.commands.lightning", "racro_pl.commands.test", "racro_pl.callbacks", "experiment_parts.measure")
"""Imported once, for all forks."""


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, of one thread each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument(
        "--publish", action="store_true", help="write into docs/ and README.md, beside the tables that are there"
    )
    parser.add_argument("--dry-run", action="store_true", help="print when what would run, by the published seconds")
    options = parser.parse_args()
    out = options.out.absolute()
    tasks = tasks_of(options.tables, options.seeds, out, json.loads(PUBLISHED.read_text()))
    if options.dry_run:
        show(tasks, options.jobs)
        return 0
    out.mkdir(parents=True, exist_ok=True)
    failed = carry_out_all(tasks, options.jobs, out)
    lacking = {table: needed_by(table, options.seeds) & set(failed) for table in options.tables}
    complete = [table for table in options.tables if not lacking[table]]
    if complete:
        write(collect(complete, options.seeds, out), out, options.publish)
        print(f"tables and pictures in {out}: {', '.join(complete)}")
    for table, names in lacking.items():
        for name in sorted(names):
            hint = f"; see {out / name}.log" if failed[name].startswith("ended") else ""
            print(f"table {table} is not written: {name} {failed[name]}{hint}", file=sys.stderr)
    return 1 if len(complete) < len(options.tables) else 0


def show(tasks: Sequence[Task], jobs: int) -> None:
    """Print every task with the minutes in which it is expected to run, and its command."""
    slots = plan(tasks, jobs)
    commands = {task.name: task.command for task in tasks}
    for slot in slots:
        command = shlex.join(["python", "-m", *commands[slot.name]])
        print(f"{slot.begin / 60:5.1f} to {slot.end / 60:5.1f} min  {slot.name}: {command}")
    work, end = sum(task.seconds for task in tasks) / 60, max((slot.end for slot in slots), default=0) / 60
    print(f"{len(tasks)} tasks, {work:.0f} minutes of one core; {end:.0f} minutes with {jobs} jobs")


def carry_out_all(tasks: Sequence[Task], jobs: int, out: Path) -> dict[str, str]:
    """Carry all tasks out, with a line for each; returns what went wrong, by task."""
    start = time.monotonic()
    for name in PRELOADED:
        import_module(name)
    end_with_tasks()

    def tell(name: str, words: str) -> None:
        folder = newest(out / name)
        if folder is not None and words.startswith("finished"):
            figures = json.loads((folder / "held_out.json").read_text())
            words = f"{figures['before']['accuracy']:.3f} -> {figures['after']['accuracy']:.3f}, {words}"
        print(f"{(time.monotonic() - start) / 60:5.1f} min  {name}: {words}", flush=True)

    return carry_out(tasks, jobs, partial(forked, root=ROOT, out=out), tell)


def write(results: dict, out: Path, publish: bool) -> None:
    """Figures as JSON, tables as markdown, pictures; to the documentation too."""
    blocks = tables(results)
    (out / "tables.md").write_text("\n\n".join(blocks.values()) + "\n")
    (out / "experiments.json").write_text(json.dumps(results, indent=1) + "\n")
    folders = [out, ROOT / "docs/images"] if publish else [out]
    for name, picture in PICTURES.items():
        for folder in folders if picture.table in results["tables"] else []:
            picture.draw(results, folder / f"experiments_{name}.png")
    if publish:
        everything = merged(json.loads(PUBLISHED.read_text()), results)
        PUBLISHED.write_text(json.dumps(everything, indent=1) + "\n")
        blocks = tables(everything)
        readme = {"quickstart": blocks.pop("quickstart")}
        fill(ROOT / "docs/experiments.md", blocks)
        fill(ROOT / "README.md", readme)


if __name__ == "__main__":
    sys.exit(main())
