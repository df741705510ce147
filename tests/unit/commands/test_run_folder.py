"""Which folder a run writes to, and which checkpoint a job that SLURM starts again takes up."""

from __future__ import annotations

import os

import pytest

from racro_pl.commands.lightning import continued_folder
from racro_pl.training.checkpointing.io import newest_checkpoint

SLURM = {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "4711"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``runs/mine`` with a version, below the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in (*SLURM, "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    run = tmp_path / "runs/mine"
    (run / "version_3/checkpoints").mkdir(parents=True)
    return run


@pytest.mark.parametrize("name", ["checkpoints/last.ckpt", "hpc_ckpt_1.ckpt"])
def test_a_checkpoint_of_the_run_is_continued_in_its_folder(run, name):
    checkpoint = f"runs/mine/version_3/{name}"
    assert continued_folder(run, checkpoint) == run / "version_3"
    assert continued_folder(run, str(run.parent.parent / checkpoint)) == run / "version_3"


def test_a_new_run_and_a_branch_get_a_new_folder(run):
    assert continued_folder(run, None) is None
    assert continued_folder(run.parent / "branch", "runs/mine/version_3/checkpoints/last.ckpt") is None
    assert continued_folder(run, "copies/last.ckpt") is None


def test_under_slurm_the_job_has_its_number(run, monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert continued_folder(run, None) == run / "version_4711"
    assert continued_folder(run, "runs/mine/version_3/checkpoints/last.ckpt") == run / "version_3"


def test_the_newest_checkpoint_is_the_one_written_last(run):
    folder = run / "version_3"
    assert newest_checkpoint(folder) is None
    for age, name in enumerate(("finishing.ckpt", "last.ckpt", "best.ckpt", "../hpc_ckpt_1.ckpt")):
        (folder / "checkpoints" / name).touch()
        os.utime(folder / "checkpoints" / name, (1000 - age, 1000 - age))
    assert newest_checkpoint(folder) == folder / "checkpoints/last.ckpt"
    os.utime(folder / "hpc_ckpt_1.ckpt", (2000, 2000))
    assert newest_checkpoint(folder) == folder / "hpc_ckpt_1.ckpt"
