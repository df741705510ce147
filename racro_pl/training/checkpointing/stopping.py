"""Ending a run that cannot go on, in a way that lets it be taken up again."""

from __future__ import annotations

from typing import NoReturn

from lightning.pytorch import Trainer

from racro_pl.types import RacroError


def stop_with_checkpoint(trainer: Trainer, reason: RacroError) -> NoReturn:
    """Write ``checkpoints/stopped-step=N.ckpt`` in the run's folder, then raise the reason and how to go on.

    To be called by all ranks or none: they write together.
    """
    folder = trainer.log_dir or trainer.default_root_dir
    path = f"{folder}/checkpoints/stopped-step={trainer.global_step}.ckpt"
    trainer.save_checkpoint(path, weights_only=False)
    raise type(reason)(f"{reason}\nStopped after step {trainer.global_step}. Resume with --ckpt_path {path}")
