"""Which path a fit takes is decided before its first step, said once, and the same after a resumption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from racro_pl.data import FigureWorldReader
from racro_pl.data.datamodule import RacroDataModule
from racro_pl.policy.attention import GroupAttention
from racro_pl.training import startup
from racro_pl.training.checkpointing.io import RacroCheckpointIO
from racro_pl.training.module import RacroModule
from tests.helpers.device import trainer_options
from tests.helpers.families import save_small_family
from tests.unit.training.conftest import adapter, fit, make_module

PLAIN = "the plain path runs, which reads a prompt and its images for every caption: "


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a class that no family describes."""
    return save_small_family(tmp_path_factory.mktemp("stranger"), "vipllava")


def moved(module) -> bool:
    return any(bool(tensor.any()) for name, tensor in adapter(module).items() if "lora_B" in name)


def test_a_fit_says_that_the_shared_prefix_path_is_exact(folder, tmp_path, capsys):
    module = make_module(folder)
    fit(module, tmp_path)
    printed = capsys.readouterr().out
    assert printed.count("the shared-prefix path is exact: ") == 1
    assert "plain path" not in printed
    assert module.captioner.plain_because is None


def test_an_undescribed_class_is_trained_on_the_plain_path_which_is_said_once(stranger, tmp_path, capsys):
    module = make_module(stranger)
    fit(module, tmp_path, steps=2)
    printed = capsys.readouterr().out
    assert printed.count(PLAIN) == 1
    assert PLAIN + "the model type 'vipllava' is not described in docs/models.md" in printed
    assert "the captioner sees" in printed
    assert moved(module)


def test_a_run_on_the_plain_path_resumes_bit_for_bit(stranger, tmp_path):
    def run(name: str, ckpt: str | None = None) -> RacroModule:
        module = make_module(stranger)
        data = RacroDataModule(FigureWorldReader(train=10, validation=0, test=0), questions_per_step=3)
        trainer = Trainer(
            **trainer_options(), max_steps=2, max_epochs=-1, logger=False, default_root_dir=tmp_path / name,
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, inference_mode=False,
            plugins=[RacroCheckpointIO()], 
            callbacks=[ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)],
        )  # fmt: skip
        seed_everything(3)
        trainer.fit(module, datamodule=data, ckpt_path=ckpt)
        return module

    whole = adapter(run("whole"))
    resumed = adapter(run("resumed", str(tmp_path / "step=1.ckpt")))
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_a_shared_prefix_path_that_is_wrong_gives_way_to_the_plain_one(folder, tmp_path, monkeypatch, capsys):
    def without_prompt(self, query, key, value, prompt_k, prompt_v, scaling, window):
        return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)

    monkeypatch.setattr(GroupAttention, "_attend_captions", without_prompt)
    module = make_module(folder)
    fit(module, tmp_path)
    printed = capsys.readouterr().out
    assert printed.count(PLAIN + "log-probs on the shared-prefix path differ from the model's own by ") == 1
    assert moved(module)

    monkeypatch.undo()
    right = make_module(folder)
    fit(right, tmp_path)
    for name, tensor in adapter(right).items():  # the same step: the same captions, and nearly the same gradients
        torch.testing.assert_close(adapter(module)[name], tensor, rtol=0, atol=2e-2)


def test_a_fault_on_one_rank_puts_all_on_the_plain_path(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(startup, "join_ranks", lambda faults: [*faults, "a fault on another rank"])
    module = make_module(folder)
    fit(module, tmp_path)
    assert PLAIN + "a fault on another rank" in capsys.readouterr().out
    assert module.captioner.plain_because == "a fault on another rank"
