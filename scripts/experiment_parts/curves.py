"""How accurate further reasoners are on the way: at every validation, from the captions that it made."""

from __future__ import annotations

import json
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from racro_pl.callbacks import LearningReport
from racro_pl.training.checkpointing.run_folder import run_folder
from racro_pl.training.metrics.accuracy import Answered

READERS = "readers.jsonl"
"""In the run's folder: a line for each validation, with the step that it followed and each reasoner's accuracy."""


class ReaderCurves(Callback):
    """Has the further reasoners of the run's ``LearningReport`` read the captions of every validation; of one rank."""

    def __init__(self) -> None:
        self._answered: list[Answered] = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._answered += outputs["answered"]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        answered, self._answered = self._answered, []
        if trainer.sanity_checking:
            return
        report = next(each for each in trainer.callbacks if isinstance(each, LearningReport))  # type: ignore[attr-defined]
        read = report.readers.read(answered, lambda: pl_module.new_accuracy("validation", audited=False))  # type: ignore[operator]
        found = [metric.compute()["accuracy"] for metric in read]
        with (run_folder(trainer) / READERS).open("a") as file:
            line = {"step": trainer.global_step} | dict(zip(report.readers.names, found, strict=True))
            file.write(json.dumps(line) + "\n")
