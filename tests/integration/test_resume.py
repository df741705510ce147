"""``racro-pl fit`` in processes that end, are stopped, requeued or killed: the next one resumes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.fakes.runs import assert_same_run, captions, metrics
from tests.fakes.stalled_fit import run_stalled
from tests.helpers.commands import Command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
DEADLINE_S = 600
"""Far more than a run takes: who waits longer hangs."""


def arguments(root: Path, *more: str) -> list[str]:
    """The quickstart with a sampling reasoner, in small; a validation after steps 2, 4, ..."""
    return [
        "fit", "--config", str(ROOT / "configs/quickstart.yaml"), "--runs", str(root),
        "--model.reward.reasoner.init_args.temperature", "1.0", "--data.questions_per_step", "4",
        "--data.reader.init_args.train", "20", "--data.reader.init_args.validation", "8",
        "--trainer.val_check_interval", "2", "--trainer.callbacks.init_args.questions", "4", *more,
    ]  # fmt: skip


def start(words: list[str], **variables: str) -> Command:
    return Command(words, variables)


def start_stalled(marker: Path, moment: str, words: list[str], **variables: str) -> Command:
    """The same command, which stops at a moment (``tests.fakes.stalled_fit``)."""
    return Command(words, variables, partial(run_stalled, str(marker), moment))


def end(command: Command, code: int = 0) -> str:
    """Wait for a command; its output."""
    output = command.wait(DEADLINE_S)
    assert command.returncode == code, output
    return output


@contextlib.contextmanager
def killed(command: Command) -> Iterator[None]:
    """End a command by SIGKILL after the block."""
    try:
        yield
    finally:
        command.kill()


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """Six steps in one go."""
    root = tmp_path_factory.mktemp("straight")
    end(start(arguments(root, "--trainer.max_steps", "6")))
    return root / "quickstart/version_0"


def test_three_steps_and_three_more_are_six(straight, tmp_path):
    folder = tmp_path / "quickstart/version_0"
    end(start(arguments(tmp_path, "--trainer.max_steps", "3")))
    assert len(captions(folder)) == 3 * 4 * 8
    last = str(folder / "checkpoints/last.ckpt")
    end(start(arguments(tmp_path, "--trainer.max_steps", "6", "--ckpt_path", last)))
    assert_same_run(folder, straight)
    assert len(captions(straight)) == 6 * 4 * 8
    assert [row["step"] for row in metrics(straight)] == list("011233455")
    assert json.loads((folder / "held_out.json").read_text()) == json.loads((straight / "held_out.json").read_text())
    assert {path.name for path in folder.glob("*.yaml")} == {"config.yaml", "config-step=3.yaml", "hparams.yaml"}
    assert [path.name for path in (tmp_path / "quickstart").iterdir()] == ["version_0"]


def test_killed_inside_the_writing_of_a_checkpoint(straight, tmp_path):
    folder, marker = tmp_path / "quickstart/version_0", tmp_path / "stalled"
    more = ("--trainer.max_steps", "6", "--checkpoint.every_n_steps", "1", "--trainer.limit_val_batches", "1.0")
    # The fifth to be written: best and last after step 2, last of 1, last of 3, and then step 4's.
    command = start_stalled(marker, "checkpoint:5", arguments(tmp_path, *more))
    with killed(command):
        command.wait_for(marker.exists, DEADLINE_S)
    assert any((folder / "checkpoints").glob(".*.partial"))
    last = folder / "checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] in (2, 3, 4)
    end(start(arguments(tmp_path, *more, "--ckpt_path", str(last))))
    assert_same_run(folder, straight)
    assert not any((folder / "checkpoints").glob(".*"))


def test_killed_between_the_captions_and_the_checkpoint(straight, tmp_path):
    folder, marker = tmp_path / "quickstart/version_0", tmp_path / "stopped"
    more = ("--trainer.max_steps", "6", "--checkpoint.every_n_steps", "3")
    command = start_stalled(marker, "captions:5:0", arguments(tmp_path, *more))
    with killed(command):
        command.wait_for(marker.exists, DEADLINE_S)
    end(start(arguments(tmp_path, *more, "--ckpt_path", str(folder / "checkpoints/last.ckpt"))))
    assert_same_run(folder, straight)
    assert {row["step"] for row in captions(folder, "captions.replaced.jsonl")} >= {4, 5}


def test_a_job_that_slurm_requeues_goes_on_by_itself(straight, tmp_path):
    """The same command line twice; in between SLURM's warning, and a ``scontrol`` that notes what it is asked."""
    asked = tmp_path / "asked"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/scontrol").write_text(f'#!/bin/sh\necho "$@" > {asked}\n')
    (tmp_path / "bin/scontrol").chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost",
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }  # fmt: skip
    words = arguments(tmp_path / "runs", "--trainer.max_steps", "6")
    folder, marker = tmp_path / "runs/quickstart/version_4711", tmp_path / "stopped"
    command = start_stalled(marker, "captions:2:0", words, **slurm)
    command.wait_for(marker.exists, DEADLINE_S)
    os.kill(command.pid, signal.SIGUSR1)
    marker.unlink()
    assert "SIGUSR1: finishing this step" in end(command, 128 + signal.SIGUSR1)
    assert asked.read_text() == "requeue 4711\n"
    assert torch.load(folder / "hpc_ckpt_1.ckpt", weights_only=True)["global_step"] in (2, 3, 4)
    assert "hpc_ckpt_1.ckpt" in end(start(words, **slurm, SLURM_RESTART_COUNT="1"))
    assert_same_run(folder, straight)
