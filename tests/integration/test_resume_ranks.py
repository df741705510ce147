"""``racro-pl fit`` on two ranks of which one is asked to stop: the next run resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.fakes.environment import environment
from tests.fakes.runs import assert_same_run
from tests.helpers.ranks import Ranks, run_rank
from tests.integration.test_resume import DEADLINE_S, ROOT, arguments

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def start(*command: str) -> subprocess.Popen[str]:
    """As users start it: the second rank is launched by Lightning."""
    # A group of its own, which a failing test can end whole.
    return subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        start_new_session=True, env=environment(),
    )  # fmt: skip


def end(process: subprocess.Popen[str], code: int) -> str:
    """Wait for a process; its output."""
    try:
        output, _ = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("hangs:\n" + process.communicate()[0])
    assert process.returncode == code, output
    return output


def test_two_ranks_of_which_one_is_asked_to_stop(two_ranks: Ranks, tmp_path):
    """The signal reaches rank 1 alone; both stop after the same step, and resume from there."""
    more = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_steps", "5")
    assert two_ranks(run_rank, arguments(tmp_path / "straight", *more)) == [0, 0]
    straight = tmp_path / "straight/quickstart/version_0"
    folder, marker = tmp_path / "stopped/quickstart/version_0", tmp_path / "there"
    words = arguments(tmp_path / "stopped", *more)
    process = start("tests.fakes.stalled_fit", str(marker), "captions:2:1", *words)
    limit = time.monotonic() + DEADLINE_S
    while not marker.exists():
        assert time.monotonic() < limit
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    os.kill(rank_1_of(process.pid), signal.SIGTERM)
    marker.unlink()
    output = end(process, 143)
    assert "stopped by SIGTERM; resume with --ckpt_path" in output
    last = folder / "checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] in (2, 3, 4)
    # Every collective is met by both, to the last one: who asks for something alone waits for ever.
    end(start("racro_pl", *words, "--ckpt_path", str(last)), 0)
    assert (folder / "adapter/adapter_model.safetensors").is_file()
    assert (folder / "held_out.json").is_file()
    names = {path.name for path in folder.glob("captions-*.jsonl") if "replaced" not in path.name}
    assert names == {"captions-rank0.jsonl", "captions-rank1.jsonl"}
    assert_same_run(folder, straight)


def rank_1_of(pid: int) -> int:
    """The process that Lightning has launched for the second rank."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"\0LOCAL_RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError("no second rank")
