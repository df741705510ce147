"""Progress: a bar, or plain lines where no terminal shows one (SLURM, nohup, a pipe), read or not."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import Any, TextIO, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar

from racro_pl.terminal import Console

EVERY_S = 10.0
"""Seconds between two lines; the first and the last step always have theirs."""
SPEED_PERIOD_S = 3600
"""The bar's rate and time left come from so many seconds; by rich's own 30 a step of a minute would have neither."""


class StepProgressBar(RichProgressBar):
    """Lightning's bar over all steps of the run, with the time left; epochs are of no interest."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first one adds the bar, which a resumed run begins where it stopped."""
        if self.is_enabled and self.progress is not None and self.train_progress_bar_id is None:
            self.progress.speed_estimate_period = SPEED_PERIOD_S
            steps = trainer.estimated_stepping_batches
            self.train_progress_bar_id = self.progress.add_task("training", total=steps, completed=trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """One step further."""
        self.on_train_epoch_start(trainer, pl_module)  # a run that is resumed in mid-epoch has had none
        self._update(self.train_progress_bar_id, trainer.global_step)
        self._update_metrics(trainer, pl_module)
        self.refresh()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Without the logger's version number."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar before reports are printed: it would stand below them, and as the last line."""
        self._stop_progress()


class PlainProgress(ProgressBar):
    """One line every few seconds: step of all steps, seconds per step, time left, reward, accuracy."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._first: tuple[int, float] | None = None
        self._told = 0.0

    @property
    def is_enabled(self) -> bool:
        """Asked by ``LightningModule.print``, which then prints by way of this callback."""
        return self._enabled

    def disable(self) -> None:
        """As Lightning asks on every process but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Speak again."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time is counted from here, and from the step that a resumed run begins with."""
        self._first = (trainer.global_step, time.monotonic())
        self._told = 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """A line, when one is due."""
        now = time.monotonic()
        last = trainer.global_step == trainer.max_steps
        if self._enabled and self._first is not None and (last or now - self._told >= EVERY_S):
            self._told = now
            done, spent = trainer.global_step - self._first[0], now - self._first[1]
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            line = progress_line(trainer.global_step, int(trainer.max_steps), spent / max(1, done), metrics)
            Console().say(line)


def progress_line(step: int, steps: int, seconds_per_step: float, metrics: dict[str, float]) -> str:
    """What one line says.

    Args:
        steps: steps of the whole run; -1 where it has no end.
        seconds_per_step: mean over the steps of this process.
    """
    rate = f"{seconds_per_step:.1f} s/step"
    if steps > 0:
        left = timedelta(seconds=round(seconds_per_step * (steps - step)))
        parts = [f"step {step}/{steps}", rate, f"{left} left"]
    else:
        parts = [f"step {step}", rate]
    parts += [f"{name} {metrics[name]:.3f}" for name in ("reward/mean", "val/accuracy") if name in metrics]
    return ", ".join(parts)


class _Outliving:
    """A stream whose reader may go: what is written from then on goes nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As the stream's."""
        with self._surviving():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As the stream's."""
        with self._surviving():
            self._stream.flush()

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # Of a pipe whose reader has ended, and of a terminal that was closed.
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            # The descriptor, not the object: others write to it too, and what is buffered has to go somewhere.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def outliving_readers() -> Iterator[None]:
    """While a run trains, standard output and error may lose their reader (``| head``, a closed terminal).

    Rich would exit in the middle of a step, and what was learnt since the last checkpoint would be gone.
    """
    out, err = (cast(TextIO, _Outliving(stream)) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            out.flush()
            err.flush()
