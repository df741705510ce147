"""The learning rate over a run: the warm-up, what follows it, and what a resumed run takes up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from racro_pl.types import RacroError
from tests.unit.training.conftest import adapter, fit, make_module


class Rates(Callback):
    """The learning rate of every update."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_start(self, trainer, pl_module):
        (optimizer,) = trainer.optimizers
        optimizer.register_step_pre_hook(lambda *_: self.seen.append(optimizer.param_groups[0]["lr"]))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.1, 0.2, 0.3, 0.4, 0.4]), ("linear", [0.1, 0.2 * 4 / 5, 0.3 * 3 / 5, 0.4 * 2 / 5, 0.4 / 5])],
)
def test_the_rate_warms_up_and_then_follows_its_schedule(folder, tmp_path, schedule, expected):
    module = make_module(folder, warmup_updates=3, learning_rate=0.4, learning_rate_schedule=schedule)
    rates = Rates()
    fit(module, tmp_path, steps=5, callbacks=[rates])
    assert rates.seen == pytest.approx(expected)


def test_epochs_are_an_end_too(folder, tmp_path):
    """Two epochs of two steps."""
    module = make_module(folder, learning_rate=0.4, learning_rate_schedule="linear")
    rates = Rates()
    fit(module, tmp_path, steps=-1, max_epochs=2, callbacks=[rates])
    assert rates.seen == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_a_resumed_run_takes_up_the_line_where_it_was(folder, tmp_path):
    """Byte for byte as the uninterrupted one; all updates of a step take the step's rate."""
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    settings: dict[str, Any] = {"updates_per_rollout": 2, "learning_rate": 0.02, "learning_rate_schedule": "linear"}
    straight, resumed = make_module(folder, **settings), make_module(folder, **settings)
    fit(straight, tmp_path, steps=4, callbacks=[keep], enable_checkpointing=True)
    rates = Rates()
    fit(resumed, tmp_path, steps=4, ckpt=str(tmp_path / "step=2.ckpt"), callbacks=[rates])
    assert rates.seen == pytest.approx([0.01, 0.01, 0.005, 0.005])
    expected, found = adapter(straight), adapter(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_resumed_run_says_that_it_ends_elsewhere(folder, tmp_path, lines):
    """With another last step the rate falls along another line."""
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    settings: dict[str, Any] = {"learning_rate": 0.02, "learning_rate_schedule": "linear"}
    fit(make_module(folder, **settings), tmp_path, steps=4, callbacks=[keep], enable_checkpointing=True)
    for steps, said in ((4, []), (8, ["resume: after step 2 trainer.max_steps is 8 (was 4)"])):
        rates = Rates()
        module = make_module(folder, **settings)
        fit(module, tmp_path, steps=steps, ckpt=str(tmp_path / "step=2.ckpt"), callbacks=[rates])
        assert lines == said
    assert rates.seen == pytest.approx([0.02 * (1 - step / 8) for step in range(2, 8)])


def test_a_linear_schedule_needs_a_last_step(folder, tmp_path):
    module = make_module(folder, learning_rate_schedule="linear")
    with pytest.raises(RacroError, match=r"trainer.max_steps and max_epochs are both -1; set one of them"):
        fit(module, tmp_path, steps=-1, max_epochs=-1)
