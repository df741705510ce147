"""What the benchmarks' processes get from this one, and what is kept of one that fails."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
STDERR_LINES = 30


def bench_environment(**own: str) -> dict[str, str]:
    """This process's environment with ``own`` in it, quiet libraries, no network, and the project first on the path."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet = {
        "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error", "TRL_EXPERIMENTAL_SILENCE": "1",
    }  # fmt: skip
    return os.environ | quiet | own


def last_lines(stderr: str) -> list[str]:
    """The end of what a failed process wrote: its traceback begins above the line that names the error."""
    return stderr.strip().splitlines()[-STDERR_LINES:] or ["no message"]
