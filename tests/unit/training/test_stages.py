"""A stage that starts from another stage's adapter, under a real Trainer."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file

from racro_pl.types import RacroError
from tests.unit.training.conftest import adapter, fit, make_module


class First(Callback):
    """The metrics and the adapter of the first step."""

    def on_train_start(self, trainer, pl_module):
        self.before = adapter(pl_module)

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 1:
            self.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_a_stage_goes_on_from_a_checkpoint_and_is_held_near_it(folder, tmp_path):
    saver = ModelCheckpoint(tmp_path / "stage1" / "checkpoints", filename="{step}", every_n_train_steps=2)
    first = make_module(folder)
    fit(first, tmp_path / "stage1", steps=2, enable_checkpointing=True, callbacks=[saver])
    start = tmp_path / "stage1" / "checkpoints" / "step=2.ckpt"

    watch, saver = (
        First(),
        ModelCheckpoint(tmp_path / "stage2", filename="{step}", every_n_train_steps=2, save_top_k=-1),
    )
    second = make_module(folder, policy={"adapter": str(start)})
    fit(second, tmp_path / "stage2", steps=4, enable_checkpointing=True, callbacks=[watch, saver])
    assert all(torch.equal(tensor, adapter(first)[name]) for name, tensor in watch.before.items())
    # One update per rollout: the whole first step is scored by the weights it began with.
    assert abs(watch.metrics["policy/kl"]) < 1e-7
    assert second.policy_settings.adapter == str(start.with_name("step=2-adapter"))
    saved = load_file(tmp_path / "stage2" / "step=4-adapter" / "adapter_model.safetensors")
    assert len(saved) == len(adapter(second))
    assert not any("start" in name for name in torch.load(tmp_path / "stage2" / "step=4.ckpt")["state_dict"])

    # A resumed stage has its own weights back, and still the same reference.
    resumed = make_module(folder, policy={"adapter": str(start)})
    fit(resumed, tmp_path / "again", steps=4, ckpt=str(tmp_path / "stage2" / "step=2.ckpt"))
    for name, tensor in adapter(second).items():
        assert torch.equal(adapter(resumed)[name], tensor), name


def test_an_adapter_that_is_not_there_stops_before_anything_is_loaded(folder):
    with pytest.raises(RacroError, match="policy.adapter 'runs/none' holds no"):
        make_module(folder, policy={"adapter": "runs/none"})
