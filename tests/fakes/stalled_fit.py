"""``racro-pl`` whose n-th checkpoint stalls half-written, to be killed there.

    python -m tests.fakes.stalled_fit MARKER N fit --config ...

``MARKER`` is made when it stalls.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch

from racro_pl.cli import run


def main(marker: str, number: str, *arguments: str) -> int:
    real, left = torch.save, int(number)

    def save(checkpoint: Any, file: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            file.write(b"half")
            file.flush()
            Path(marker).touch()
            time.sleep(600)
        real(checkpoint, file)

    torch.save = save
    return run(list(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
