"""Signals to a real run: the step is finished, saved, and the run can be resumed from there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests.helpers.commands import Command

ROOT = Path(__file__).parents[2]


LIMIT_S = 1000.0
"""Far more than a run takes: who takes longer hangs."""


def start(runs: Path) -> Command:
    """A quickstart of small steps, in a session of its own."""
    return Command(
        [
            "fit", "--config", str(ROOT / "configs/quickstart.yaml"), "--trainer.max_steps", "1000", "--runs",
            str(runs), "--data.questions_per_step", "2", "--trainer.callbacks.init_args.questions", "4",
            "--data.reader.init_args.train", "40",
        ],
        {},
    )  # fmt: skip


def steps_done(folder: Path) -> list[int]:
    """Of a run folder, by its captions. The run may be writing: half a line at the end is left out."""
    names = sorted(folder.glob("captions*.jsonl"))
    lines = names[0].read_text().rpartition("\n")[0].splitlines() if names else []
    return sorted({json.loads(line)["step"] for line in lines})


def end_of(command: Command) -> tuple[int | None, str]:
    """Exit code and output; nothing of its session may be left."""
    output = command.wait(LIMIT_S)
    deadline = time.monotonic() + 100
    while (left := _in_session(command.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, left
    return command.returncode, output


def _in_session(leader: int) -> list[str]:
    """Command lines of the processes of a session that still run."""
    listed = subprocess.run(["ps", "-eo", "sid,stat,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return [row[2] for row in rows if row[0] == str(leader) and not row[1].startswith("Z")]


@pytest.mark.slow  # in the test's own process: tests/unit/training/test_run_checkpoint.py
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(tmp_path, number):
    command = start(tmp_path)
    folder = tmp_path / "quickstart/version_0"
    command.wait_for(lambda: len(steps_done(folder)) >= 2, LIMIT_S)
    os.kill(command.pid, number)
    code, output = end_of(command)
    assert code == 128 + number, output
    done = steps_done(folder)
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == done[-1]
    assert f"stopped by {signal.Signals(number).name}; resume with --ckpt_path" in output
    assert "Traceback" not in output
