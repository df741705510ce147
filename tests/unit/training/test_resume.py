"""A resumed run is the run that was never stopped: with sampling reasoners, in mid-epoch, at a validation."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint

from racro_pl.data import FigureWorldReader
from racro_pl.data.datamodule import RacroDataModule
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.reward import InProcessReasoner
from racro_pl.reward.scorer import Scorer
from racro_pl.rollout import TransformersEngine
from racro_pl.training.callbacks.records import CaptionLog
from racro_pl.training.checkpointing.callback import RunCheckpoint
from racro_pl.training.checkpointing.io import RacroCheckpointIO, newest_checkpoint
from racro_pl.training.checkpointing.resume_logs import ContinuedCSVLogger, read_table, write_table
from racro_pl.training.module import RacroModule
from racro_pl.training.settings import ObjectiveSettings
from tests.fakes.runs import assert_same_run, captions
from tests.helpers.device import trainer_options

STEPS = 7


class KeepAll(Checkpoint):
    """Copies ``last.ckpt`` as soon as there is a new one: what would lie there, had the run been killed then."""

    def on_train_batch_start(self, trainer, *args):
        source = newest_checkpoint(Path(trainer.log_dir))
        if source is not None:
            shutil.copy(source, Path(trainer.log_dir) / f"at-{trainer.global_step}.ckpt")


def fit(
    root: Path, cache: Path | None, updates: int, ckpt: str | None = None, validation: int = 4, **options: Any
) -> Path:
    """Three steps an epoch, a validation every second step."""
    module = RacroModule(
        PolicySettings("embedded:figure-captioner", LoraSettings(4, 8), min_pixels=3136, max_pixels=3136,
                       dtype="float32", gradient_checkpointing=False),
        TransformersEngine(group_size=4, max_new_tokens=11),
        Scorer(
            InProcessReasoner("embedded:figure-reasoner", temperature=1.0, max_new_tokens=8), votes=2,
            cache="off" if cache is None else "on", cache_path=cache, shuffle=updates == 2,
        ),
        ObjectiveSettings(learning_rate=1e-2, updates_per_rollout=updates, warmup_updates=4),
    )  # fmt: skip
    seed_everything(8 if ckpt else 11)  # the checkpoint's seed is used, whatever this one is
    trainer = Trainer(
        **trainer_options(), max_steps=STEPS, max_epochs=-1, logger=ContinuedCSVLogger(root, "run", "version_0", "", 1),
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, inference_mode=False,
        val_check_interval=2, check_val_every_n_epoch=None, plugins=[RacroCheckpointIO()], log_every_n_steps=1,
        callbacks=[CaptionLog(), RunCheckpoint(every_n_steps=1), KeepAll()], **options,
    )  # fmt: skip
    data = RacroDataModule(FigureWorldReader(train=10, validation=validation, test=0), questions_per_step=3)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt)
    return root / "run/version_0"


@pytest.mark.parametrize("updates", [1, 2])
def test_a_killed_run_resumes_as_if_it_had_not_been(tmp_path, updates):
    """Killed after step 7, resumed from a checkpoint of before: after a validation, and at an epoch's end.

    With two updates a step the rewards are shuffled as well, and the cache is on; its file is lost in between.
    """
    cache = (tmp_path / "before.sqlite", tmp_path / "after.sqlite") if updates == 2 else (None, None)
    straight = fit(tmp_path / "straight", cache[0], updates)
    rewards = [row["reward"] for row in captions(straight)]
    assert 0 < sum(rewards) < len(rewards)
    for step in (2, 3) if updates == 1 else (4,):
        root = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "straight", root)
        if step == 3:  # killed just after the checkpoint, before the step's figures were logged
            table = root / "run/version_0/metrics.csv"
            header, rows = read_table(table)
            write_table(table, header, [row for row in rows if int(row["step"]) < step - 1])
        again = fit(root, cache[1], updates, ckpt=str(root / f"run/version_0/at-{step}.ckpt"))
        assert {row["step"] for row in captions(again, "captions.replaced.jsonl")} == set(range(step + 1, STEPS + 1))
        assert_same_run(again, straight, cache_lost=updates == 2)


def test_a_run_without_validation_questions_is_saved_and_resumes_where_a_validation_would_be_due(tmp_path):
    straight = fit(tmp_path / "straight", None, 1, validation=0)
    shutil.copytree(tmp_path / "straight", tmp_path / "again")
    kept = tmp_path / "again/run/version_0/at-4.ckpt"
    assert torch.load(kept, weights_only=True)["global_step"] == 4
    assert_same_run(fit(tmp_path / "again", None, 1, ckpt=str(kept), validation=0), straight)


def test_a_run_whose_epochs_are_cut_resumes_at_the_next_ones_first_question(tmp_path):
    """After step 4, the last of the second epoch: a third of its questions have not come, and will not."""
    straight = fit(tmp_path / "straight", None, 1, limit_train_batches=2)
    shutil.copytree(tmp_path / "straight", tmp_path / "again")
    kept = tmp_path / "again/run/version_0/at-4.ckpt"
    assert_same_run(fit(tmp_path / "again", None, 1, ckpt=str(kept), limit_train_batches=2), straight)


def test_a_checkpoint_is_as_large_as_what_was_trained(tmp_path):
    """The weights and AdamW's two moments of each; beside them the folder, with the weights alone."""
    folder = fit(tmp_path, None, 1) / "checkpoints"
    whole = torch.load(folder / "last.ckpt", weights_only=True)
    trained = sum(tensor.numel() for tensor in whole["state_dict"].values())
    moments = [tensor.numel() for entry in whole["optimizer_states"][0]["state"].values() for tensor in entry.values()]
    assert sum(moments) - len(moments) // 3 == 2 * trained
    names = 1500 * len(whole["state_dict"])  # zip entries and alignment, three for each tensor
    assert 3 * 4 * trained < (folder / "last.ckpt").stat().st_size < 3 * 4 * trained + names + 50_000
    assert (folder / "last-adapter/adapter_model.safetensors").stat().st_size < 4 * trained + names
    assert {path.name for path in folder.iterdir()} == {"last.ckpt", "last-adapter", "best.ckpt", "best-adapter"}
