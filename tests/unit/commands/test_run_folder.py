"""Which folder a run writes to, and which checkpoint a job that SLURM starts again takes up."""

from __future__ import annotations

import os

import pytest

from racro_pl.commands.run_place import NewFolder, OldFolder, continued_folder
from racro_pl.runs import folder_of, new_version
from racro_pl.training.checkpointing.io import newest_checkpoint
from racro_pl.types import RacroError

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


def by_a_file(runs):
    runs.write_text("")


def by_a_link_to_nowhere(runs):
    runs.symlink_to("nowhere")


def by_a_file_of_the_name(runs):
    runs.mkdir()
    (runs / "mine").write_text("")


def by_a_link_of_the_name(runs):
    runs.mkdir()
    (runs / "mine").symlink_to("nowhere")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "block",
    [
        by_a_file,
        by_a_link_to_nowhere,
        by_a_file_of_the_name,
        by_a_link_of_the_name,
    ],
)
def test_a_runs_folder_that_is_blocked_is_one_line(tmp_path, block):
    block(tmp_path / "runs")
    with pytest.raises(RacroError, match="no run folder can be made below .*mine .*--runs"):
        new_version(tmp_path / "runs/mine")


def test_a_name_lies_below_the_runs_folder(tmp_path):
    assert folder_of(tmp_path, "a/b") == tmp_path / "a/b"
    for elsewhere in ("../x", "a/../../x", "/tmp/x", ".", "", " "):
        with pytest.raises(RacroError, match="--name is .*; expected a folder below --runs"):
            folder_of(tmp_path, elsewhere)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_runs_folder_that_is_read_only_is_one_line(tmp_path):
    (tmp_path / "runs").mkdir(mode=0o555)
    with pytest.raises(RacroError, match="no run folder can be made below .*Permission denied"):
        new_version(tmp_path / "runs/mine")


def test_a_version_that_is_a_file_is_passed_over(tmp_path):
    (tmp_path / "version_0").write_text("")
    assert new_version(tmp_path) == tmp_path / "version_1"


def test_a_failed_start_takes_away_what_it_made_and_no_more(tmp_path):
    (tmp_path / "mine").mkdir()
    planned = NewFolder.planned(tmp_path / "mine/runs/name")
    folder = NewFolder(new_version(tmp_path / "mine/runs/name"), planned.parents)
    (folder.path / "config.yaml").write_text("")
    (folder.path / "events.out.tfevents.1").write_text("")
    folder.discard()
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


@pytest.mark.parametrize("name", ["captions.jsonl", "vllm.log", "checkpoints/last.ckpt"])
def test_what_a_run_has_made_is_never_taken_away(tmp_path, name):
    folder = NewFolder(new_version(tmp_path / "runs"), [tmp_path / "runs"])
    for file in (folder.path / "config.yaml", folder.path / name):
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
    folder.discard()
    assert (folder.path / name).is_file()
    assert (folder.path / "config.yaml").is_file()


@pytest.mark.parametrize("name", ["events.out.tfevents.2", "config-step=2.yaml"])
def test_a_resume_that_is_refused_adds_nothing_to_the_runs_folder(tmp_path, name):
    (tmp_path / "metrics.csv").write_text("step")
    folder = OldFolder.found(tmp_path)
    (tmp_path / name).write_text("")
    folder.discard()
    assert list(tmp_path.iterdir()) == [tmp_path / "metrics.csv"]


def test_a_resume_that_is_refused_leaves_the_configuration_of_an_earlier_one(tmp_path):
    (tmp_path / "config-step=2.yaml").write_text("of the earlier one")
    folder = OldFolder.found(tmp_path)
    (tmp_path / "config-step=2.yaml").write_text("new")
    folder.discard()
    assert (tmp_path / "config-step=2.yaml").read_text() == "of the earlier one"


@pytest.mark.parametrize("name", ["metrics.csv", "captions.jsonl"])
def test_what_a_resumed_run_has_made_is_never_taken_away(tmp_path, name):
    (tmp_path / "metrics.csv").write_text("step")
    folder = OldFolder.found(tmp_path)
    with (tmp_path / name).open("a") as file:
        file.write("more")
    (tmp_path / "events.out.tfevents.2").write_text("")
    folder.discard()
    assert (tmp_path / "events.out.tfevents.2").is_file()
