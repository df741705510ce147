"""Where a run writes, and ending a run that cannot continue in a way that lets it be resumed."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import NoReturn

from lightning.pytorch import Trainer

from racro_pl.types import RacroError


def run_folder(trainer: Trainer) -> Path:
    """Where the run writes: ``trainer.log_dir``, or the default root when a logger has no folder.

    To be asked by every rank or none: the ranks agree on the answer by a broadcast.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)


def stop_with_checkpoint(trainer: Trainer, reason: RacroError) -> NoReturn:
    """Write ``checkpoints/stopped-step=N.ckpt`` in the run's folder, then raise the reason and how to resume.

    To be called by all ranks or none: they write together.
    """
    path = run_folder(trainer) / "checkpoints" / f"stopped-step={trainer.global_step}.ckpt"
    trainer.save_checkpoint(path, weights_only=False)
    then = f"Resume with --ckpt_path {quote(str(path))}"
    raise type(reason)(f"{reason}\nStopped after step {trainer.global_step}. {then}")
