"""A run resumed with other data, another seed, or from an older or foreign checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from racro_pl.data import FigureWorldReader
from racro_pl.data.curriculum import Curriculum
from racro_pl.data.datamodule import RacroDataModule
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.rollout import TransformersEngine
from racro_pl.training.checkpointing import resuming
from racro_pl.training.settings import ObjectiveSettings
from racro_pl.types import RacroError
from tests.helpers.device import trainer_options
from tests.unit.training.conftest import fit, make_module
from tests.unit.training.test_resuming import FIELDS, parameters, resume, table


def on_figures(folder: Path, root: Path, ckpt: Path | None = None, train: int = 8, **data: Any) -> RacroDataModule:
    module = make_module(folder, micro_batch_size=16)
    options: dict[str, Any] = {
        **trainer_options(), "max_steps": 1, "logger": False, "enable_progress_bar": False, "limit_val_batches": 0,
        "enable_model_summary": False, "default_root_dir": str(root), "inference_mode": False,
    }  # fmt: skip
    keep = ModelCheckpoint(dirpath=root, every_n_train_steps=1, filename="one")
    trainer = Trainer(**options, callbacks=[] if ckpt else [keep], enable_checkpointing=ckpt is None)
    reader = FigureWorldReader(train=train, validation=0, test=0)
    questions = RacroDataModule(reader, **({"questions_per_step": 2, "seed": 5} | data))
    trainer.fit(module, datamodule=questions, ckpt_path=None if ckpt is None else str(ckpt))
    return questions


@pytest.fixture(scope="module")
def in_mid_epoch(folder, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    on_figures(folder, root)
    return root / "one.ckpt"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions_per_step": 4}, r"data.questions_per_step is 4 \(was 2\)"),
        ({"seed": 6}, r"data.seed is 6 \(was 5\)"),
        ({"curriculum": Curriculum(solved_weight=0.5)}, r"data.curriculum is .*'solved_weight': 0.5.* \(was None\)"),
        ({"train": 6}, r"the training questions are other ones \(data.reader, data.max_prompt_tokens\)"),
    ],
    ids=["questions_per_step", "seed", "curriculum", "reader"],
)
def test_another_order_of_the_questions_is_refused(folder, in_mid_epoch, tmp_path, changes, message):
    with pytest.raises(RacroError, match=f"position in the epoch would stand for other questions: {message}"):
        on_figures(folder, tmp_path, in_mid_epoch, **changes)


def test_data_settings_that_leave_the_order_apply(folder, in_mid_epoch, tmp_path):
    data = on_figures(folder, tmp_path, in_mid_epoch, eval_batch_size=3, max_prompt_tokens=4000)
    assert (data.eval_batch_size, data.max_prompt_tokens) == (3, 4000)
    said = {"questions_per_step", "seed", "curriculum", "reader", "eval_batch_size", "max_prompt_tokens"}
    said |= {"validation", "validation_limit"}
    assert said == FIELDS["data"]


def test_the_seed_stays_the_checkpoints_and_that_is_said(folder, checkpoint, tmp_path, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr("racro_pl.training.base.rank_zero_info", told.append)
    altered = torch.load(checkpoint, weights_only=True) | {"racro_seed": 11}
    torch.save(altered, tmp_path / "other.ckpt")
    module = make_module(folder)
    resume(module, tmp_path / "other.ckpt", tmp_path)
    assert table()["fit.seed_everything"] == "is the checkpoint's"
    assert module.seed == 11
    assert told == ["resume: the seed is the checkpoint's, 11; seed_everything 3 is not used"]


def test_a_checkpoint_of_an_older_version_resumes_and_says_what_was_not_compared(folder, checkpoint, tmp_path, lines):
    old = torch.load(checkpoint, weights_only=True)
    for key in (resuming.SETTINGS_KEY, resuming.ORIGIN_KEY):
        del old[key]
    torch.save(old, tmp_path / "old.ckpt")
    resume(make_module(folder), tmp_path / "old.ckpt", tmp_path)
    assert "base model, start adapter, objective and the order of the questions could not be compared" in lines[0]
    with pytest.raises(RacroError, match="set policy.lora to"):
        resume(make_module(folder, policy={"lora": LoraSettings(2, 8)}), tmp_path / "old.ckpt", tmp_path)


def test_validation_takes_weights_of_any_objective_but_of_no_other_adapter(folder, checkpoint, tmp_path):
    for changes, fits in (({"name": "vpo", "caption_judge": "rule"}, True), ({"policy": {"lora": None}}, False)):
        module = make_module(folder, **changes)
        trainer = fit(module, tmp_path)
        if fits:
            trainer.limit_val_batches = 1
            trainer.validate(module, datamodule=trainer.datamodule, ckpt_path=str(checkpoint))
        else:
            with pytest.raises(RacroError, match="set policy.lora to"):
                trainer.validate(module, datamodule=trainer.datamodule, ckpt_path=str(checkpoint))


def test_settings_in_a_checkpoint_are_plain_values(checkpoint):
    settings = torch.load(checkpoint, weights_only=True)[resuming.SETTINGS_KEY]
    names = {f"objective.{field.name}" for field in dataclasses.fields(ObjectiveSettings)}
    names |= {f"policy.{field.name}" for field in dataclasses.fields(PolicySettings)}
    names |= {f"rollout.{name}" for name in parameters(TransformersEngine)}
    assert names <= set(settings)
    assert settings["rollout"] == "TransformersEngine"
    assert settings["objective.clip_high"] == 0.2  # what null stood for


def test_tensors_of_other_sizes_or_in_another_order_are_refused():
    own = {"one": torch.zeros(2, 3), "two": torch.zeros(4)}
    with pytest.raises(RacroError, match=r"two is \(5,\) in the checkpoint and \(4,\) in this policy"):
        resuming._check_tensors({"one": torch.zeros(2, 3), "two": torch.zeros(5)}, own)
    with pytest.raises(RacroError, match="in another order, so the optimizer's moments would go to wrong ones"):
        resuming._check_tensors(dict(reversed(own.items())), own)
