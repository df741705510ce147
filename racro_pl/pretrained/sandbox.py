"""Runs what a model folder brings along and must be run (a chat template, a pattern) where it can be killed.

Both can take for ever: nested loops, ``2 ** 10 ** 10``, a pattern that backtracks. No limit inside this process stops
that on every thread, so they run in a process of their own, one for all models, with a time limit and a memory limit.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

from racro_pl.types import RacroError

START_LIMIT_S = 120.0
"""Seconds to start Python and import jinja2, on a busy machine."""
LIMIT_S = 5.0
"""Seconds for one request. Honest ones take less than a thousandth."""


class SandboxError(RacroError):
    """What a stranger wrote failed, took too long, or needed too much memory."""


class RefusalError(SandboxError):
    """What ran ended in time, with an error of its own."""


class _Worker:
    """One running ``sandbox_worker.py``; ends by itself when this process dies."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("sandbox_worker.py")
        self.owner = os.getpid()
        # -P: the script's folder must not go on the path. A Ctrl-C in the terminal is for the run, not for the worker.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, encoding="utf-8", start_new_session=True,
        )  # fmt: skip
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        # A thread that reads lets any thread wait with a limit, on every platform.
        threading.Thread(target=_read_lines, args=(self._process.stdout, self._lines), daemon=True).start()
        if not self._next_line(START_LIMIT_S):
            self.kill()
            raise SandboxError("the process that renders chat templates did not start; is jinja2 installed?")

    def _next_line(self, limit_s: float) -> str | None:
        """The next reply; "" when the process is gone, None when the limit is over."""
        try:
            return self._lines.get(timeout=limit_s)
        except queue.Empty:
            return None

    def ask(self, request: list[Any], limit_s: float) -> str | None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            return ""
        return self._next_line(limit_s)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was not sent yet cannot be any more
                    stream.close()


def _read_lines(stream: IO[str], lines: queue.SimpleQueue[str]) -> None:
    with contextlib.suppress(ValueError):  # closed meanwhile
        for line in stream:
            lines.put(line)
    lines.put("")


_lock = threading.Lock()
_worker: _Worker | None = None


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
        if _worker is None or _worker.owner != os.getpid():  # a forked process must not share its parent's pipes
            _worker = _Worker()
        line = _worker.ask(request, LIMIT_S)
        if not line:
            _worker.kill()
            _worker = None
    if line is None:
        raise SandboxError(f"{what} did not end within {LIMIT_S:g} s")
    if not line:
        raise SandboxError(f"{what} ended the process it ran in (out of memory?)")
    reply = json.loads(line)
    if "error" in reply:
        raise RefusalError(f"{what} failed: {reply['error']}")
    return reply["result"]


def close() -> None:
    """End the worker; a later request starts another."""
    global _worker
    with _lock:
        if _worker is not None and _worker.owner == os.getpid():
            _worker.kill()
        _worker = None


atexit.register(close)
