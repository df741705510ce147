"""Captions and own answers in one run, against each alone and one after the other, in both embedded worlds.

In the reckoning world all runs start from the captioner of ``experiment_parts.looking``, which can look before it
answers; in the figure world from the embedded one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from experiment_parts.runs import JOINT, JOINT_EMBEDDED, LOOKING, Run, execute

LOOKING_MODEL = f"{LOOKING}/model"
"""Within the folder of all runs."""


def prepare(out: Path) -> None:
    """Make the captioner that the runs start from, unless it is there."""
    if not (out / LOOKING_MODEL / "config.json").is_file():
        command = [sys.executable, "-m", "experiment_parts.looking", str(out / LOOKING), "--seed", "1"]
        execute(command, out / f"{LOOKING}.log")


def in_stages(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs side by side, and those that begin with what another one trained, which come after all of these."""
    stages = [[run for run in runs if not run.row.after], [run for run in runs if run.row.after]]
    return [stage for stage in stages if stage]


def starts(runs: Sequence[Run], out: Path) -> dict[str, str]:
    """What the reckoning world's evaluation of these runs has to test besides, by name: where they started."""
    rows = {run.row for run in runs}
    return {LOOKING: str(out / LOOKING_MODEL)} if rows & set(JOINT) - set(JOINT_EMBEDDED) else {}
