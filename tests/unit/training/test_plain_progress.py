"""Progress without a terminal: plain lines with all that a log needs."""

from __future__ import annotations

import io
import os
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from racro_pl.reward import CaptionPenalty, HttpReasoner, InProcessReasoner, RuleJudge, Scorer
from racro_pl.reward.own_answer import OwnAnswers
from racro_pl.serving.addresses import issue_key, withdraw_key
from racro_pl.terminal import Console
from racro_pl.training.callbacks import progress
from racro_pl.training.callbacks.learning_report import _last_words, own_reasoner
from racro_pl.training.callbacks.parameter_count import parameter_line
from racro_pl.training.callbacks.progress import PlainProgress, StepProgressBar, outliving_readers, progress_line
from racro_pl.types import ImageRef, Question


def test_a_line_says_step_rate_and_time_left():
    line = progress_line(20, 80, 2.0, {"reward/mean": 0.5, "val/accuracy": 0.25, "loss": 1.0})
    assert line == "step 20/80, 2.0 s/step, 0:02:00 left, reward/mean 0.500, val/accuracy 0.250"
    assert progress_line(5, -1, 0.26, {}) == "step 5, 0.3 s/step"


def test_the_start_says_how_much_is_trained():
    model = torch.nn.Sequential(torch.nn.Linear(10, 3), torch.nn.Linear(3, 2))
    model[0].requires_grad_(False)
    assert parameter_line(model) == "policy: 8 of 41 parameters are trained"
    model[1].weight.quant_state = SimpleNamespace(shape=torch.Size([100, 10]))
    assert parameter_line(model) == "policy: 1,002 of 1,035 parameters are trained"


def lines_of(capsys, monkeypatch, steps, first=0, enabled=True):
    """What is printed by steps that take 4 seconds each."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = PlainProgress()
    if not enabled:
        bar.disable()
    trainer = SimpleNamespace(global_step=first, max_steps=steps, callback_metrics={"reward/mean": 0.5})
    bar.on_train_start(trainer, None)
    while trainer.global_step < steps:
        trainer.global_step += 1
        now[0] += 4.0
        bar.on_train_batch_end(trainer, None)
    return capsys.readouterr().out.splitlines()


def test_lines_come_every_ten_seconds_and_for_the_last_step(capsys, monkeypatch):
    lines = lines_of(capsys, monkeypatch, steps=8)
    assert [line.split(",")[0] for line in lines] == ["step 1/8", "step 4/8", "step 7/8", "step 8/8"]
    assert "4.0 s/step, 0:00:16 left" in lines[1]
    assert "0:00:00 left" in lines[-1]


def test_a_resumed_run_counts_its_own_steps_for_the_rate(capsys, monkeypatch):
    lines = lines_of(capsys, monkeypatch, steps=8, first=6)
    assert lines[0].startswith("step 7/8, 4.0 s/step, 0:00:04 left")


def test_other_processes_are_silent(capsys, monkeypatch):
    assert lines_of(capsys, monkeypatch, steps=8, enabled=False) == []


def dead_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def dead_terminal():
    master, terminal = os.openpty()
    os.close(master)
    return terminal


@pytest.mark.parametrize("unread", [dead_pipe, dead_terminal])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_run_outlives_the_readers_of_its_output(monkeypatch, unread, name):
    with open(unread(), "w") as stream:
        monkeypatch.setattr(sys, name, stream)
        with outliving_readers():
            print("left in the buffer", file=getattr(sys, name))
            Console(stderr=name == "stderr").say("one line")
            Console(stderr=name == "stderr").say("and another")
            assert getattr(sys, name).fileno() == stream.fileno()
        assert getattr(sys, name) is stream
        print("and one after it", file=stream, flush=True)


def test_any_other_error_of_the_output_is_one(monkeypatch):
    monkeypatch.setattr(sys, "stdout", open("/dev/full", "w"))  # noqa: SIM115
    with pytest.raises(OSError, match="No space left"), outliving_readers():
        Console().say("a line")


def test_a_run_ends_with_a_changed_caption_and_the_command_to_type_next(tmp_path):
    question = Question("a", (ImageRef(data=b""),), "<image>How many?", "3", "math")
    same, changed = (SimpleNamespace(question=question, caption=text) for text in ("as it was", "[red] new"))
    lines = _last_words(tmp_path, OwnAnswers(), [same, changed], ["as it was", "old"])
    assert [line.split() for line in lines[:3]] == [["question", "How", "many?"], ["before", "old"],
                                                    ["after", "[red]", "new"]]  # fmt: skip
    shown = io.StringIO()
    Console(file=shown, width=20, force_terminal=True).say("\n".join(lines))
    assert shown.getvalue() == "\n".join(lines) + "\n"  # as it is: no markup, no colour, no line broken
    assert lines[-1] == f'next: racro-pl ask IMAGE "QUESTION" --captioner {tmp_path}'
    assert _last_words(tmp_path, OwnAnswers(), [same], ["as it was"]) == lines[-1:]


def test_the_command_to_type_next_can_be_copied_and_asks_the_runs_reasoner():
    reward = Scorer(InProcessReasoner("my models/reader"), cache="off")
    [line] = _last_words(Path("my runs/version_0"), reward, [], [])
    assert shlex.split(line)[3:] == ["IMAGE", "QUESTION", "--captioner", "my runs/version_0", "--reasoner",
                                     "my models/reader"]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "asked"),
    [({}, "http://127.0.0.1:9/v1"), ({"model": "one of them"}, None), ({"api_key_env": "KEY"}, None)],
)
def test_a_server_is_named_where_ask_needs_no_more_than_its_url(options, asked):
    reward = Scorer(HttpReasoner("http://127.0.0.1:9/v1", **options), cache="off")
    assert own_reasoner(CaptionPenalty(reward, RuleJudge(), 0.5)) == asked


def test_a_server_that_ends_with_the_run_is_not_named():
    issue_key("http://127.0.0.1:9/v1", "key")
    try:
        assert own_reasoner(Scorer(HttpReasoner("http://127.0.0.1:9/v1"), cache="off")) is None
    finally:
        withdraw_key("http://127.0.0.1:9/v1")


class Steps(LightningModule):
    """Four steps an epoch, without anything to learn."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.optimizers().step()

    def configure_optimizers(self):
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(range(4))


@pytest.mark.parametrize("limit", [{"max_steps": 10, "max_epochs": -1}, {"max_epochs": 3}])
def test_the_bar_counts_all_steps_and_tells_the_time_left(tmp_path, capfd, limit):
    now, seen = [0.0], []

    class Note(Callback):
        def on_train_batch_start(self, trainer, *args):
            bar = trainer.progress_bar_callback
            bar.progress.get_time = bar.train_progress_bar._get_time = lambda: now[0]
            now[0] += 60.0  # longer than rich looks back by itself

        def on_train_batch_end(self, trainer, *args):
            task = trainer.progress_bar_callback.train_progress_bar
            seen.append((task.completed, task.total, task.time_remaining))

    Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False, **limit,
        default_root_dir=tmp_path, callbacks=[StepProgressBar(), Note()],
    ).fit(Steps())  # fmt: skip
    total = limit.get("max_steps", 12)
    assert [(done, of) for done, of, _ in seen] == [(step, total) for step in range(1, total + 1)]
    assert [left for *_, left in seen[1:4]] == [60 * (total - step) for step in (2, 3, 4)]
