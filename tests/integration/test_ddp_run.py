"""A whole run on two processes: every collective is met by all ranks, to the last one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.environment import environment

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_ranks_finish_and_leave_what_one_would(tmp_path):
    command = [
        sys.executable, "-m", "racro_pl", "fit", "--config", str(ROOT / "configs/quickstart.yaml"),
        "--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_steps", "2", "--runs", str(tmp_path),
        "--data.questions_per_step", "4", "--trainer.callbacks.init_args.questions", "8",
    ]  # fmt: skip
    # A rank that asks for something alone waits for ever: the limit is the test.
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "quickstart/version_0"
    assert (folder / "adapter/adapter_model.safetensors").is_file()
    assert (folder / "held_out.json").is_file()
    assert {path.name for path in folder.glob("captions-*.jsonl")} == {"captions-rank0.jsonl", "captions-rank1.jsonl"}
