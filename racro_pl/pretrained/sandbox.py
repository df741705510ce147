"""Runs what a model folder brings along and must be run (a chat template, a pattern) where it can be killed.

Both can take for ever: nested loops, ``2 ** 10 ** 10``, a pattern that backtracks. No limit inside this process stops
that on every thread, so they run in a process of their own, one for all models, with a time limit and a memory limit.
"""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path
from typing import Any

from racro_pl.types import RacroError
from racro_pl.worker_process import WorkerDiedError, WorkerProcess

WORKER = Path(__file__).with_name("sandbox_worker.py")
LIMIT_S = 5.0
"""Seconds for one request. Honest ones take less than a thousandth."""


class SandboxError(RacroError):
    """What a stranger wrote failed, took too long, or needed too much memory."""


class RefusalError(SandboxError):
    """What ran ended in time, with an error of its own."""


_lock = threading.Lock()
_worker: WorkerProcess | None = None


def run_apart(request: list[Any], what: str) -> Any:
    """The result of a request to the worker.

    Args:
        request: see ``sandbox_worker.py``.
        what: names what runs, for errors.

    Raises:
        RefusalError: it raised.
        SandboxError: it took longer, or ended the process.
    """
    global _worker
    with _lock:
        # An interrupt ends the worker too; and a forked process must not share its parent's pipes.
        if _worker is None or not _worker.alive or _worker.owner != os.getpid():
            _worker = WorkerProcess(WORKER, "renders chat templates", "jinja2")
        try:
            reply = _worker.ask(request, LIMIT_S)
        except TimeoutError:
            raise SandboxError(f"{what} did not end within {LIMIT_S:g} s") from None
        except WorkerDiedError:
            raise SandboxError(f"{what} ended the process it ran in (out of memory?)") from None
    if "error" in reply:
        raise RefusalError(f"{what} failed: {reply['error']}")
    return reply["result"]


def close() -> None:
    """End the worker; a later request starts another."""
    global _worker
    with _lock:
        if _worker is not None:
            _worker.kill()
        _worker = None


atexit.register(close)
