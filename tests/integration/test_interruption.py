"""Signals to a real run: the step is finished, saved, and the run can be resumed from there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.fakes.environment import environment

ROOT = Path(__file__).parents[2]


def start(runs: Path, *more: str, steps: int = 1000, **variables: str) -> subprocess.Popen[str]:
    """A quickstart of small steps, in a session of its own."""
    command = [
        sys.executable, "-m", "racro_pl", "fit", "--config", str(ROOT / "configs/quickstart.yaml"),
        "--trainer.max_steps", str(steps), "--runs", str(runs), "--data.questions_per_step", "2",
        "--trainer.callbacks.init_args.questions", "4", "--data.reader.init_args.train", "40", *more,
    ]  # fmt: skip
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(**variables),
        start_new_session=True,
    )  # fmt: skip


def wait_for(condition, process: subprocess.Popen[str], limit_s: float = 1000) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def steps_done(folder: Path) -> list[int]:
    """Of a run folder, by its captions. The run may be writing: half a line at the end is left out."""
    names = sorted(folder.glob("captions*.jsonl"))
    lines = names[0].read_text().rpartition("\n")[0].splitlines() if names else []
    return sorted({json.loads(line)["step"] for line in lines})


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and output; nothing of its session may be left."""
    output = process.communicate(timeout=1000)[0]
    deadline = time.monotonic() + 100
    while (left := _in_session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, left
    return process.returncode, output


def _in_session(leader: int) -> list[str]:
    """Command lines of the processes of a session that still run."""
    listed = subprocess.run(["ps", "-eo", "sid,stat,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return [row[2] for row in rows if row[0] == str(leader) and not row[1].startswith("Z")]


@pytest.mark.slow  # in the test's own process: tests/unit/training/test_run_checkpoint.py
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(tmp_path, number):
    process = start(tmp_path)
    folder = tmp_path / "quickstart/version_0"
    wait_for(lambda: len(steps_done(folder)) >= 2, process)
    process.send_signal(number)
    code, output = end_of(process)
    assert code == 128 + number, output
    done = steps_done(folder)
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == done[-1]
    assert f"stopped by {signal.Signals(number).name}; resume with --ckpt_path" in output
    assert "Traceback" not in output
