"""The environment of processes that tests start."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(*first: str | Path, **own: str) -> dict[str, str]:
    """This process's, with ``own`` in it, one thread, and this project in front of whatever is on the module path.

    Args:
        first: folders to put before the project.
        own: variables, by name.
    """
    path = [*map(str, first), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"} | own
