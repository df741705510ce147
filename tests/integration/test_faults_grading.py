"""The process that compares formulas is killed in mid run: another one takes over, and no caption loses its score."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

from lightning.pytorch import Callback, Trainer, seed_everything

from racro_pl.reward import grader
from racro_pl.training.module import RacroModule
from tests.fakes.vllm import is_alive
from tests.integration.test_faults import CAPTIONER
from tests.unit.training.conftest import ListData, make_module, questions


class Killer(Callback):
    """Kills the worker while it is at its first comparison of the second step."""

    def __init__(self, monkeypatch) -> None:
        self.armed = False
        self.killed: list[int] = []
        self.unscored: list[float] = []
        ask = grader.WorkerProcess.ask

        def ask_or_die(worker, request, limit_s):
            if self.armed and request[0] == "equal":  # not the process that renders chat templates
                self.armed = False
                self.killed.append(worker._process.pid)
                os.kill(worker._process.pid, signal.SIGKILL)
            return ask(worker, request, limit_s)

        monkeypatch.setattr(grader.WorkerProcess, "ask", ask_or_die)

    def on_train_batch_start(self, trainer: Trainer, pl_module: RacroModule, *args: object) -> None:
        self.armed = trainer.global_step == 1

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: object) -> None:
        self.unscored.append(float(trainer.callback_metrics["reasoner/unscored"]))


def symbolic(prompt: str) -> str:
    """An answer of its own for every caption, so that each has to be compared by the worker."""
    return rf"\boxed{{\int_0^{{{len(prompt) + sum(map(ord, prompt))}}} x dx}}"


def test_a_killed_grader_costs_nothing(tmp_path, monkeypatch):
    module = make_module(CAPTIONER, symbolic)
    module.scorer._grader.limit_s = 100.0  # a busy machine
    killer = Killer(monkeypatch)
    items = [replace(question, answer=r"\int_0^2 x dx", answer_type="math") for question in questions(8)]
    seed_everything(3)
    trainer = Trainer(
        accelerator="cpu", max_steps=3, logger=False, enable_checkpointing=False, max_epochs=-1, callbacks=[killer],
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, default_root_dir=str(tmp_path),
        inference_mode=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=ListData(items, 4))
    assert trainer.global_step == 3
    assert len(killer.killed) == 1
    assert killer.unscored == [0, 0, 0]
    assert not is_alive(killer.killed[0])
