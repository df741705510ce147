"""The captioner's side of ``test`` and ``caption`` under Lightning's ``Trainer.predict``: one process per device, each
with its share of what there is to write. What is written goes to files at once: no predictions are gathered.
"""

from __future__ import annotations

import datetime
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from racro_pl.evaluation.captioner_source import is_url
from racro_pl.evaluation.progress import stage
from racro_pl.evaluation.settings import CaptionerSettings
from racro_pl.evaluation.writers import Writer, open_writer
from racro_pl.types import RacroError

PATIENCE = datetime.timedelta(days=2)
"""How long a rank that is done waits for the others, whose questions may take longer."""


class CaptionJob(Protocol):
    """What one captioner has to write, and where to."""

    title: str
    """For the progress that is shown."""

    def left(self) -> int:
        """Number of texts that this process has to write; those that are on disk already do not count."""
        ...

    def write(self, items: Sequence[Any], writer: Writer) -> Iterator[None]:
        """Write what is missing of a batch of the data loader; yields once per text, also when there is none."""
        ...

    def end(self) -> None:
        """Everything has been tried."""
        ...


class CaptionerModule(LightningModule):
    """One captioner, loaded only where something is left to write.

    Args:
        settings: of the captioner.
        begin: called in every process when Lightning has started all of them: opens the files.
    """

    def __init__(self, settings: CaptionerSettings, begin: Callable[[], CaptionJob]) -> None:
        super().__init__()
        self.settings = settings
        self._begin = begin
        self._writer: Writer | None = None
        self._opened = ExitStack()

    def setup(self, stage: str) -> None:
        """Open the files.

        Raises:
            RacroError: whatever is wrong with captioners, reasoners or files.
        """
        self._job = self._begin()

    def on_predict_start(self) -> None:
        """Load the captioner, or make sure that its server answers."""
        if threading.current_thread() is threading.main_thread():
            # Lightning's handler takes note of SIGTERM, and a prediction never looks at that note: it would not stop.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        left = self._job.left()
        if left:
            self._writer = open_writer(self.settings, self.trainer.strategy.root_device)
            self._opened.callback(self._writer.close)
            self._writer.check()
            self._advance = self._opened.enter_context(stage(self._job.title, left, self.trainer.is_global_zero))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Questions hold references to images; the captioner opens and moves what it needs."""
        return batch

    def predict_step(self, batch: Sequence[Any], batch_idx: int, dataloader_idx: int = 0) -> int:
        """Write what is missing of a batch; gives the number of texts."""
        if self._writer is None:
            return 0
        count = 0
        for _ in self._job.write(batch, self._writer):
            count += 1
            self._advance()
        return count

    def on_predict_end(self) -> None:
        self._job.end()

    def close(self) -> None:
        """Let go of weights and connections, also after an error, where Lightning calls no hook of a module."""
        self._opened.close()
        self._writer = None


def predict(trainer: Trainer, module: CaptionerModule, data: LightningDataModule | DataLoader) -> None:
    """Run ``Trainer.predict`` for its side effects.

    Raises:
        KeyboardInterrupt: on Ctrl-C, of which Lightning makes a plain exit when it has ended the other processes.
    """
    source: dict[str, Any] = {"datamodule" if isinstance(data, LightningDataModule) else "dataloaders": data}
    try:
        trainer.predict(module, **source, return_predictions=False)
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        module.close()


def batch_size_for(settings: CaptionerSettings) -> int:
    """Items per batch of the data loader.

    A model in this process takes them as they are. A server always has ``settings.batch_size`` requests in flight and
    falls idle only at the end of a batch: many make that rare.
    """
    return max(256, 32 * settings.batch_size) if is_url(settings.path) else settings.batch_size


def open_trainer(accelerator: str, devices: str, num_nodes: int) -> Trainer:
    """Lightning's trainer for predictions: over processes by DDP; it writes no logs or checkpoints of its own.

    Raises:
        RacroError: ``devices`` is no number.
    """
    if devices != "auto" and not (devices.isdigit() and int(devices) > 0):
        raise RacroError(f"devices is {devices!r}; expected auto or a number of processes")
    options: dict[str, Any] = {
        "accelerator": accelerator,
        "devices": int(devices) if devices != "auto" else "auto",
        "num_nodes": num_nodes,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        # Models are loaded meanwhile: their weights shall be usable elsewhere too.
        "inference_mode": False,
        # There is no checkpoint to requeue a job with: what is written is on disk.
        "plugins": [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None,
    }
    trainer = Trainer(**options)
    # How many processes there are is Lightning's to tell; its own strategy for several gives up after half an hour.
    return trainer if trainer.world_size == 1 else Trainer(**options, strategy=DDPStrategy(timeout=PATIENCE))
