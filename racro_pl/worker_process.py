"""A script of this package in a process of its own, which can be killed: for work that may never end."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from racro_pl.types import RacroError

START_LIMIT_S = 120.0
"""Seconds that a script may take to import what it needs, on a busy machine."""


class WorkerDiedError(Exception):
    """The worker ended while it was asked."""


class WorkerProcess:
    """A running script that answers one JSON line with one, the first when it is ready.

    It is killed when this object is dropped, and ends by itself when this process dies: its input then closes.

    Args:
        purpose: what the script does, for errors: ``the worker that ...``.
        needs: what it imports.

    Raises:
        RacroError: it did not start.
    """

    def __init__(self, script: Path, purpose: str, needs: str) -> None:
        self.owner = os.getpid()
        errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        # -P: the script's folder must not go on the path, where its neighbours would hide standard modules (http).
        # A session of its own: a Ctrl-C in the terminal is for the run; the worker then ends by its closed pipe.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            text=True, encoding="utf-8", start_new_session=True,
        )  # fmt: skip
        self.kill = weakref.finalize(self, _kill, self._process, self.owner)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        # A thread that reads lets any thread wait with a limit, on every platform.
        threading.Thread(target=_read_lines, args=(self._process.stdout, self._lines), daemon=True).start()
        try:
            self._next(START_LIMIT_S)
        except (TimeoutError, WorkerDiedError):
            self.kill()
            errors.seek(0)
            raise RacroError(
                f"the worker that {purpose} did not start; is {needs} installed? Its last words: "
                f"{errors.read()[-500:].strip() or '(none)'}"
            ) from None
        errors.close()

    @property
    def alive(self) -> bool:
        """Whether it was not ended from here; it may still have died of itself."""
        return self.kill.alive

    def ask(self, request: Sequence[Any], limit_s: float) -> Any:
        """The answer to a request, both plain JSON values. Whatever this raises, an interrupt too, ends the worker.

        Raises:
            TimeoutError: there was none within the limit.
            WorkerDiedError: it ended, now or before.
        """
        line = json.dumps(request) + "\n"
        if not self.alive:
            raise WorkerDiedError
        try:
            self._send(line)
            return json.loads(self._next(limit_s))
        except BaseException:
            # What it still says would be taken for the answer to the next request.
            self.kill()
            raise

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError:
            raise WorkerDiedError from None

    def _next(self, limit_s: float) -> str:
        try:
            line = self._lines.get(timeout=limit_s)
        except queue.Empty:
            raise TimeoutError from None
        if not line.endswith("\n"):  # nothing, or what it was about to say when it was killed
            raise WorkerDiedError
        return line


def _read_lines(stream: IO[str], lines: queue.SimpleQueue[str]) -> None:
    with contextlib.suppress(ValueError):  # closed meanwhile
        for line in stream:
            lines.put(line)
    lines.put("")  # the process is gone


def _kill(process: subprocess.Popen[str], owner: int) -> None:
    if os.getpid() != owner:  # a forked copy of its parent
        return
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what was not sent yet cannot be any more
                stream.close()
