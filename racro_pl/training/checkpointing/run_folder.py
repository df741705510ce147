"""Where a run writes."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer


def run_folder(trainer: Trainer) -> Path:
    """Where the run writes: ``trainer.log_dir``, or the default root when a logger has no folder.

    To be asked by every rank or none: the ranks agree on the answer by a broadcast.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)
