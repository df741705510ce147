"""Full fine-tuning of sharded weights that is interrupted and resumed, on two ranks (`tests.helpers.ranks`).

Leaves ``half.ckpt`` of step 1 of 2, the final model of the first run, and per rank what it found.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.distributed.tensor import DTensor

from racro_pl.training.callbacks.records import SaveResult
from racro_pl.training.module import RacroModule
from racro_pl.training.strategy import gather
from tests.unit.training.conftest import fit, make_module


class SaveHalfway(Callback):
    """Lightning's own way to a checkpoint, at a step's end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: object) -> None:
        if trainer.global_step == 1:
            trainer.save_checkpoint(self.path)


def fit_twice(rank: int, ranks: int, model: Path, folder: Path) -> None:
    """What each rank does."""
    ways: dict[str, Any] = {
        "strategy": "fsdp2",
        "devices": ranks,
        "precision": "bf16-mixed",
        "limit_val_batches": 1,
        "val_check_interval": 1,
    }
    weights = []
    for ckpt in (None, str(folder / "half.ckpt")):
        module = make_module(model, policy={"lora": None}, learning_rate=1e-3, updates_per_rollout=2)
        callbacks = [SaveHalfway(folder / "half.ckpt"), SaveResult()] if ckpt is None else []
        fit(module, folder, steps=2, ckpt=ckpt, callbacks=callbacks, **ways)
        weights.append(gather(module.state_dict()))
    parameters = list(module.captioner.parameters())
    found = {
        "weights": weights,
        "all": sum(p.numel() for p in parameters),
        "own": sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in parameters),
        "tower": sum(p.numel() for name, p in module.captioner.named_parameters() if ".visual." in name),
    }
    torch.save(found, folder / f"found.{rank}.pt")
