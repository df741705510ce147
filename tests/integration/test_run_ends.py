"""However a run is configured and however it ends: one folder, results before reports, nothing of a failed start."""

from __future__ import annotations

import errno
import json
import os
import sys

import pytest
import yaml

from racro_pl.training import callbacks
from racro_pl.training.callbacks import pictures, records
from tests.fakes.loggers import ListLogger
from tests.fakes.reasoner_server import FaultServer
from tests.integration.test_cli import OWN_DATA, call, data_set, fit_own_data, good_rows, png

REPORT = ("--trainer.callbacks+=racro_pl.training.callbacks.LearningReport",)
ALWAYS = {"config.yaml", "metrics.csv", "captions.jsonl", "checkpoints", "adapter", "live.html"}
NO_SPLIT = "LearningReport: the data has no test split"


def fit(capfd, tmp_path, *more, rows=4):
    with FaultServer() as server:
        return fit_own_data(capfd, tmp_path, good_rows(rows), server.url, *more)


def names(tmp_path, version=0):
    return {path.name for path in (tmp_path / f"runs/own_data/version_{version}").iterdir()}


def test_data_without_a_test_split_is_told_at_the_start_and_costs_nothing(capfd, caplog, tmp_path):
    code, printed = fit(capfd, tmp_path, *REPORT)
    assert code == 0, printed
    assert max(caplog.text.count(NO_SPLIT), printed.count(NO_SPLIT)) == 1
    assert names(tmp_path) >= ALWAYS | {"curve.png"}
    assert call(capfd, "export", str(tmp_path / "runs/own_data/version_0"), str(tmp_path / "out"))[0] == 0
    assert (tmp_path / "out/adapter_model.safetensors").is_file()


@pytest.mark.parametrize("broken", ["draw_curve", "draw_captions"])
def test_a_picture_that_fails_is_one_warning(capfd, caplog, tmp_path, monkeypatch, broken):
    def fails(*args):
        raise ValueError("no picture today\nand a second line")

    monkeypatch.setattr(pictures, broken, fails)
    code, printed = fit(
        capfd, tmp_path, *REPORT, "--data.reader.init_args.test_path", str(tmp_path / "questions.jsonl")
    )
    assert code == 0, printed
    (warning,) = (record.getMessage() for record in caplog.records if "failed (" in record.getMessage())
    assert "png failed (ValueError: no picture today); what was made before is in" in warning
    assert names(tmp_path) >= ALWAYS | {"held_out.json"}
    assert "held-out accuracy: " in printed


def test_a_comparison_that_fails_is_one_warning(capfd, caplog, tmp_path, monkeypatch):
    measured = []
    real = callbacks.LearningReport._measure

    def measure(self, trainer, module):
        measured.append(trainer.global_step)
        return real(self, trainer, module) if len(measured) == 1 else RuntimeError("the reasoner is gone")

    monkeypatch.setattr(callbacks.LearningReport, "_measure", measure)
    code, printed = fit(
        capfd, tmp_path, *REPORT, "--data.reader.init_args.test_path", str(tmp_path / "questions.jsonl")
    )
    assert code == 0, printed
    assert measured == [0, 1]
    assert "held-out accuracy failed (RuntimeError: the reasoner is gone)" in caplog.text
    assert names(tmp_path) >= ALWAYS | {"curve.png"}
    assert "held_out.json" not in names(tmp_path)


# ------------------------------------------------------------------ what nobody sees


def test_pictures_whose_pixels_are_broken_are_left_out_of_a_step_and_of_a_validation(capfd, tmp_path):
    """Their headers are good, so that only a step finds out; one line says each time which it was."""
    (tmp_path / "cut.png").write_bytes(png(80, 60)[:60])
    # The good ones first: the probe at the start looks no further.
    rows = good_rows(2)
    rows += [{"id": f"broken-{i}", "question": "What?", "answer": "42", "image": "cut.png"} for i in range(2)]
    with FaultServer() as server:
        code, printed = fit_own_data(
            capfd, tmp_path, rows, server.url, "--data.questions_per_step", "4", "--trainer.limit_val_batches", "1",
            "--trainer.val_check_interval", "1", "--data.reader.init_args.validation_path",
            str(tmp_path / "questions.jsonl"),
        )  # fmt: skip
    assert code == 0, printed
    assert [printed.count(f"question broken-{i} left out: ") for i in range(2)] == [2, 2]
    captioned = (tmp_path / "runs/own_data/version_0/captions.jsonl").read_text().splitlines()
    assert {json.loads(line)["question_id"] for line in captioned} == {"0", "1"}


def test_a_run_whose_output_nobody_reads_goes_on_to_its_end(capfd, tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        assert fit(capfd, tmp_path, *REPORT)[0] == 0
    assert names(tmp_path) >= ALWAYS | {"curve.png"}
    assert (tmp_path / "runs/own_data/version_0/checkpoints/last.ckpt").is_file()


# ------------------------------------------------------------------ loggers

LOGGERS = {
    "default": ("--trainer.logger", "true"),
    "none": ("--trainer.logger", "false"),
    "tensorboard": ("--trainer.logger", "{class_path: TensorBoardLogger, init_args: {save_dir: elsewhere}}"),
    "two": ("--trainer.logger", "[{class_path: CSVLogger, init_args: {save_dir: elsewhere}}, "
            "{class_path: tests.fakes.loggers.ListLogger}]", "--allow-imports"),
    "own": ("--trainer.logger", "tests.fakes.loggers.ListLogger", "--allow-imports"),
}  # fmt: skip


@pytest.mark.parametrize("options", LOGGERS.values(), ids=LOGGERS)
def test_the_run_folder_is_the_same_with_every_logger_and_twice_in_a_row(capfd, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ListLogger, "rows", [])
    runs = 2 if options in (LOGGERS["default"], LOGGERS["own"]) else 1
    for version in range(runs):
        code, printed = fit(capfd, tmp_path, *options)
        assert code == 0, printed
        events = {name for name in names(tmp_path, version) if name.startswith("events.out.tfevents")}
        assert bool(events) == ("false" not in options)
        assert names(tmp_path, version) - events - {"hparams.yaml", "watch.jsonl"} == ALWAYS
    beside = {path.name for path in tmp_path.iterdir()} - {"good.png", "broken.png", "huge.png", "questions.jsonl"}
    assert beside == {"runs", "elsewhere"} if "elsewhere" in options[1] else {"runs"}
    if "ListLogger" in options[1]:
        assert len([row for row in ListLogger.rows if "reward/mean" in row]) == runs


def test_a_run_with_loggers_resumes_in_its_folder_with_its_own_configuration(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fit(capfd, tmp_path, *LOGGERS["tensorboard"])[0] == 0
    folder = tmp_path / "runs/own_data/version_0"
    with FaultServer() as server:
        code, printed = call(
            capfd, "fit", "--config", str(folder / "config.yaml"), "--trainer.max_steps", "2",
            "--ckpt_path", str(folder / "checkpoints/last.ckpt"), "--model.reward.reasoner.init_args.url", server.url,
        )  # fmt: skip
    assert code == 0, printed
    assert names(tmp_path) >= ALWAYS | {"config-step=1.yaml"}
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3
    assert [path.name for path in (tmp_path / "runs/own_data").iterdir()] == ["version_0"]
    before, after = (yaml.safe_load((folder / name).read_text()) for name in ("config.yaml", "config-step=1.yaml"))
    assert before["trainer"]["logger"] == after["trainer"]["logger"]


def test_a_logger_whose_package_is_missing_is_one_line(capfd, tmp_path):
    logger = "{class_path: lightning.pytorch.loggers.MLFlowLogger}"  # the tests have another one of that name
    code, printed = fit(capfd, tmp_path, "--trainer.logger", logger)
    assert code != 0
    assert "mlflow" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "runs").exists()


def test_default_root_dir_is_refused_with_what_to_set(capfd, tmp_path):
    code, printed = fit(capfd, tmp_path, "--trainer.default_root_dir", str(tmp_path / "root"))
    assert code == 1
    assert "default_root_dir" in printed
    assert "set runs (the folder of all runs) and name" in printed
    assert not (tmp_path / "runs").exists()


# ------------------------------------------------------------------ starts that fail, and disks that are full


STARTS = {
    "reasoner": (),  # nothing is at its address
    "setting": ("--trainer.gradient_clip_val", "1.0"),
    "devices": ("--trainer.devices", "0"),
    "data": ("--data.reader.init_args.path", "missing.jsonl"),
    "checkpoint": ("--ckpt_path", "missing.ckpt"),
    "captioner": ("--model.policy.path", "embedded:unknown"),
}


@pytest.mark.usefixtures("quick_refusal")
@pytest.mark.parametrize("options", STARTS.values(), ids=STARTS)
def test_a_start_that_fails_leaves_nothing(capfd, tmp_path, options):
    code, printed = fit_own_data(capfd, tmp_path, good_rows(4), "http://127.0.0.1:9/v1", *options)
    assert code != 0
    assert "Traceback" not in printed
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("quick_refusal")
def test_a_validation_that_cannot_start_leaves_nothing(capfd, tmp_path):
    rows = data_set(tmp_path, good_rows(4))
    code, printed = call(
        capfd, "validate", "--config", OWN_DATA, "--runs", str(tmp_path / "runs"), "--data.reader.init_args.path", rows,
        "--data.reader.init_args.validation_path", rows, "--model.reward.reasoner.init_args.url", "http://127.0.0.1:9/v1",
    )  # fmt: skip
    assert code == 1
    assert "no reasoner at" in printed
    assert not (tmp_path / "runs").exists()


def test_a_file_where_the_runs_should_be_is_one_line(capfd, tmp_path):
    (tmp_path / "runs").write_text("mine")
    code, printed = fit(capfd, tmp_path)
    assert code == 1
    assert "no run folder can be made below" in printed
    assert "Traceback" not in printed
    assert (tmp_path / "runs").read_text() == "mine"


def test_a_disk_that_is_full_after_a_checkpoint_is_one_line_with_the_way_on(capfd, tmp_path, monkeypatch):
    def no_space(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as writing to an open file says it: without a name

    second = (record for record in (records.append_private, no_space))
    monkeypatch.setattr(records, "append_private", lambda *args: next(second)(*args))
    code, printed = fit(capfd, tmp_path, "--trainer.max_steps", "2", "--checkpoint.every_n_steps", "1")
    assert code == 1
    checkpoint = tmp_path / "runs/own_data/version_0/checkpoints/last.ckpt"
    assert printed.strip().splitlines()[-1] == (
        "racro-pl fit: cannot write: No space left on device; free some space, then resume with --ckpt_path "
        f"{checkpoint}"
    )
    assert "Traceback" not in printed


@pytest.mark.parametrize("full", ["captions", "checkpoint"])
def test_a_full_disk_is_one_line_that_says_what_to_do(capfd, tmp_path, monkeypatch, full):
    def no_space(path, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    if full == "captions":
        monkeypatch.setattr(records, "append_private", no_space)
    else:
        monkeypatch.setattr("racro_pl.training.checkpointing.io.save_file", no_space)
    code, printed = fit(capfd, tmp_path)
    assert code == 1
    assert "No space left on device" in printed
    assert "free some space" in printed
    assert "Traceback" not in printed
    assert not list((tmp_path / "runs").rglob(".*"))


def test_files_of_a_run_have_the_modes_that_docs_files_md_states(capfd, tmp_path):
    before = os.umask(0o022)
    try:
        code, printed = fit(
            capfd, tmp_path, *REPORT, "--data.reader.init_args.test_path", str(tmp_path / "questions.jsonl")
        )
    finally:
        os.umask(before)
    assert code == 0, printed
    folder = tmp_path / "runs/own_data/version_0"
    private = {file.name for file in folder.rglob("*") if file.is_file() and file.stat().st_mode & 0o777 == 0o600}
    assert private >= {"config.yaml", "captions.jsonl", "captions.png"}
    assert private <= {"config.yaml", "captions.jsonl", "captions.png", "live.html", "watch.jsonl"}
    shared = [path for path in folder.rglob("*") if path.name not in private]
    assert {path.stat().st_mode & 0o777 for path in shared if path.is_file()} == {0o644}
    assert {path.stat().st_mode & 0o777 for path in shared if path.is_dir()} == {0o755}
    weights = {path.name for path in folder.rglob("*.safetensors")} | {path.name for path in folder.rglob("*.ckpt")}
    assert weights == {"adapter_model.safetensors", "last.ckpt"}
