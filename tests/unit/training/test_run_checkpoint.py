"""last.ckpt and best.ckpt, and a run that is asked to stop: after which step, with what saved."""

from __future__ import annotations

import csv
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from racro_pl.training.callbacks.learning_report import LearningReport
from racro_pl.training.callbacks.records import CaptionLog
from racro_pl.training.checkpointing import io as checkpoints
from racro_pl.training.checkpointing.callback import RunCheckpoint
from racro_pl.training.checkpointing.io import RacroCheckpointIO, clear_leftovers
from racro_pl.training.checkpointing.signals import Stopped
from racro_pl.training.metrics.accuracy import PipelineAccuracy
from racro_pl.types import RacroError
from tests.fakes.runs import captions
from tests.unit.training.conftest import by_caption, fit, make_module


def run(folder: Path, root: Path, script: Callable[[str], str | None] = by_caption, every: int = 2, **options) -> Path:
    callbacks = [*options.pop("callbacks", []), CaptionLog(), RunCheckpoint(every)]
    logger = CSVLogger(root, "run", "version_0", flush_logs_every_n_steps=1)
    fit(
        make_module(folder, script), root, logger=logger, callbacks=callbacks, enable_checkpointing=True,
        log_every_n_steps=1, **options,
    )  # fmt: skip
    return root / "run/version_0"


def step_of(checkpoint: Path) -> int:
    return torch.load(checkpoint, weights_only=True)["global_step"]


def signals_at(*moments: tuple[int, int]) -> Callable[[str], str | None]:
    """Answers prompts, 16 a step; at those of these numbers the process gets a signal."""
    asked = 0

    def script(prompt: str) -> str | None:
        nonlocal asked
        asked += 1
        for number, signum in moments:
            if number == asked:
                os.kill(os.getpid(), signum)
        return by_caption(prompt)

    return script


def test_the_last_and_the_best_are_kept_whatever_else_is_monitored(folder, tmp_path, monkeypatch):
    scores, compute = iter([0.5, 0.9, 0.7]), PipelineAccuracy.compute
    monkeypatch.setattr(PipelineAccuracy, "compute", lambda self: compute(self) | {"accuracy": next(scores)})
    own = ModelCheckpoint(monitor="reward/mean", mode="max", filename="own", every_n_train_steps=1)
    kept = run(
        folder, tmp_path, steps=7, limit_val_batches=1, val_check_interval=2, check_val_every_n_epoch=None,
        callbacks=[own],
    )  # fmt: skip
    assert step_of(kept / "checkpoints/last.ckpt") == 7  # also when the steps are no multiple
    assert step_of(kept / "checkpoints/best.ckpt") == 4
    assert (kept / "checkpoints/own.ckpt").is_file()


@pytest.fixture
def hangup():
    """SIGHUP as it is in a terminal, whatever started these tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_run_after_its_step(folder, tmp_path, signum):
    """It comes in the middle of step 3 of 9; the last checkpoint before was of step 2."""
    before = signal.getsignal(signum)
    with pytest.raises(Stopped) as stop:
        run(folder, tmp_path, signals_at((40, signum)), steps=9)
    assert stop.value.exit_code == 128 + signum
    kept = tmp_path / "run/version_0"
    assert f"--ckpt_path {kept}/checkpoints/last.ckpt" in str(stop.value)
    assert step_of(kept / "checkpoints/last.ckpt") == 3
    assert [row["step"] for row in captions(kept)] == [1] * 16 + [2] * 16 + [3] * 16
    assert [row["step"] for row in csv.DictReader((kept / "metrics.csv").open())] == ["0", "1", "2"]
    assert signal.getsignal(signum) == before


@pytest.mark.usefixtures("hangup")
def test_a_run_under_nohup_goes_on_when_its_terminal_ends(folder, tmp_path):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    kept = run(folder, tmp_path, signals_at((20, signal.SIGHUP)), steps=3)
    assert step_of(kept / "checkpoints/last.ckpt") == 3
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_the_command_to_resume_can_be_copied():
    told = str(Stopped(signal.SIGTERM, Path("my runs/last.ckpt")))
    assert shlex.split(told)[-2:] == ["--ckpt_path", "my runs/last.ckpt"]


def test_a_validation_that_is_due_comes_before_the_stop(folder, tmp_path):
    with pytest.raises(Stopped):
        run(
            folder, tmp_path, signals_at((20, signal.SIGTERM)), steps=9, limit_val_batches=1, val_check_interval=2,
            check_val_every_n_epoch=None,
        )  # fmt: skip
    kept = tmp_path / "run/version_0"
    assert step_of(kept / "checkpoints/last.ckpt") == 2
    rows = list(csv.DictReader((kept / "metrics.csv").open()))
    assert [(row["step"], bool(row["val/accuracy"])) for row in rows] == [("0", False), ("1", False), ("1", True)]


def test_a_validation_that_fails_is_made_again_by_the_resumed_run(folder, tmp_path):
    """A checkpoint from after step 2 would say that its validation has been."""

    class Fails(Callback):
        def on_validation_start(self, trainer, pl_module):
            raise Full

    with pytest.raises(Full):
        run(
            folder, tmp_path, steps=9, every=1, limit_val_batches=1, val_check_interval=2, check_val_every_n_epoch=None,
            callbacks=[Fails()],
        )  # fmt: skip
    assert step_of(tmp_path / "run/version_0/checkpoints/last.ckpt") == 1


def test_a_second_ctrl_c_stops_at_once(folder, tmp_path):
    with pytest.raises(Stopped, match="stopped by SIGINT$"):
        run(folder, tmp_path, signals_at((36, signal.SIGINT), (40, signal.SIGINT)), steps=9)
    kept = tmp_path / "run/version_0"
    assert [row["step"] for row in captions(kept)] == [1] * 16 + [2] * 16
    assert step_of(kept / "checkpoints/last.ckpt") == 2


def test_in_the_last_step_a_signal_changes_nothing(folder, tmp_path):
    kept = run(folder, tmp_path, signals_at((20, signal.SIGTERM)), steps=2)
    assert step_of(kept / "checkpoints/last.ckpt") == 2


@pytest.mark.parametrize("least", [1, 5])
def test_a_signal_while_the_run_is_ending_early_is_saved_as_any_other(folder, tmp_path, least):
    """In step 2 something ends the run, at once or after five steps; the signal comes in step 2 or 3."""

    class EndsEarly(Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.should_stop = trainer.global_step >= 2

    step = 2 if least == 1 else 3
    with pytest.raises(Stopped, match="last.ckpt"):
        run(
            folder, tmp_path, signals_at((16 * step - 4, signal.SIGTERM)), steps=9, every=9, min_steps=least,
            min_epochs=0, callbacks=[EndsEarly()],
        )  # fmt: skip
    kept = tmp_path / "run/version_0/checkpoints"
    assert step_of(kept / "last.ckpt") == step
    assert not any(kept.glob("finishing*"))


class Full(OSError):
    """No space left, half-way."""


@pytest.mark.parametrize("whole", [0, 1])
def test_a_checkpoint_cut_off_in_writing_leaves_the_one_before(folder, tmp_path, monkeypatch, whole):
    real, written = torch.save, []

    def save(checkpoint, file):
        written.append(checkpoint["global_step"])
        if len(written) > whole:
            file.write(b"half")
            raise Full
        real(checkpoint, file)

    monkeypatch.setattr(torch, "save", save)
    kept = tmp_path / "run/version_0/checkpoints"
    advice = f"resume from the one before, .*: --ckpt_path {kept}/last.ckpt$" if whole else "start the run again: no "
    with pytest.raises(RacroError, match=f"cannot write the checkpoint .*last.ckpt: .* free some space, then {advice}"):
        run(folder, tmp_path, steps=9)
    assert written == [2, 4][: whole + 1]
    if not whole:
        assert list(kept.iterdir()) == []
        return
    assert step_of(kept / "last.ckpt") == 2
    assert {path.name for path in kept.iterdir()} == {"last.ckpt", "last-adapter"}


@pytest.mark.parametrize("calls", range(5))
def test_wherever_it_is_killed_both_the_file_and_the_folder_are_whole(folder, tmp_path, monkeypatch, calls):
    """Every rename and removal of a second checkpoint's writing, and the process gone just before it."""

    class Killed(BaseException):
        pass

    io, left = RacroCheckpointIO(), [99]

    def dies(do):
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return do(*arguments, **options)

        return call

    monkeypatch.setattr(Path, "replace", dies(Path.replace))
    monkeypatch.setattr(checkpoints.shutil, "rmtree", dies(checkpoints.shutil.rmtree))
    for step in (1, 2):
        tensors = {"captioner.model.lora_A.default.weight": torch.full((2,), float(step))}
        left[0] = 99 if step == 1 else calls
        try:
            io.save_checkpoint({"state_dict": tensors, "racro_adapter_config": "{}"}, tmp_path / "last.ckpt")
        except Killed:
            assert step == 2
    left[0] = 99
    clear_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "last-adapter"}
    io.load_checkpoint(tmp_path / "last.ckpt")
    assert {path.name for path in (tmp_path / "last-adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors"
    }  # fmt: skip


@pytest.mark.parametrize("changed", [{"questions": 3}, {"sheet_images": 1}])
def test_a_report_that_would_compare_other_questions_is_refused_at_the_start(changed):
    state = LearningReport(questions=4, sheet_images=2).state_dict()
    LearningReport(questions=4, sheet_images=2).load_state_dict(state)
    with pytest.raises(RacroError, match="began with [42].*as it was"):
        LearningReport(**({"questions": 4, "sheet_images": 2} | changed)).load_state_dict(state)
