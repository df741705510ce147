"""``racro-pl`` that stops at one moment of a run, to be killed or asked to end there however long it took to get there.

    python -m tests.fakes.stalled_fit MARKER MOMENT fit --config ...

``MOMENT`` is ``checkpoint:N``, the n-th one half-written, or ``captions:N:RANK``, those of step N written by this rank.
``MARKER`` is made when it stops; when it is removed, the run continues.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from racro_pl.cli import run
from racro_pl.training.callbacks import records


def stop_at_checkpoint(marker: Path, number: int) -> None:
    """The file is left half-written: there is no way on from here."""
    real, left = torch.save, number

    def save(checkpoint: Any, file: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            file.write(b"half")
            file.flush()
            stay(marker)
        real(checkpoint, file)

    torch.save = save


def stop_at_captions(marker: Path, step: int, rank: int) -> None:
    """After the step's lines are on the disk, before anything else is."""
    real = records.append_private

    def append(path: Path, lines: list[str]) -> None:
        real(path, lines)
        if f'{{"step": {step},' in lines[0] and int(os.environ.get("LOCAL_RANK", "0")) == rank:
            stay(marker)

    records.append_private = append


def stay(marker: Path) -> None:
    """Handlers of signals run here."""
    marker.touch()
    while marker.exists():
        time.sleep(0.02)


def run_stalled(marker: str, moment: str, arguments: list[str]) -> int:
    """``racro-pl ARGUMENTS``, which stops at that moment; its exit status."""
    kind, *numbers = moment.split(":")
    stop = {"checkpoint": stop_at_checkpoint, "captions": stop_at_captions}[kind]
    stop(Path(marker), *map(int, numbers))
    return run(arguments)


if __name__ == "__main__":
    sys.exit(run_stalled(*sys.argv[1:3], sys.argv[3:]))
