"""Is an answer right? ``text.verdict`` says so; what it leaves open is asked of a computer algebra system.

Nearly every answer is decided without one. The others (sums, integrals, limits) go to math-verify's parser and sympy
in a process of its own, because a symbolic comparison may run for ever and can only be stopped from outside.
"""

from __future__ import annotations

import contextlib
import json
import math
import queue
import re
import subprocess
import sys
import tempfile
import threading
import weakref
from collections import Counter
from pathlib import Path
from typing import IO, Any

from racro_pl.reward.reasoner import require
from racro_pl.text.latex import MAX_ANSWER_CHARS
from racro_pl.text.verdict import is_right
from racro_pl.types import Question, RacroError

START_LIMIT_S = 120.0
"""Seconds that the worker may take to import sympy, on a busy machine."""
TRIES = 3
"""How often a comparison that hits its limit, or kills its worker, is asked; beyond, it stays ungraded."""
_REMEMBERED = 10_000
_PLAIN_NUMBER = re.compile(r"-?\d{1,300}(?:\.\d{1,300})?", re.ASCII)


class GraderError(RacroError):
    """The symbolic comparison cannot be started at all."""


class _WorkerDiedError(Exception):
    """The worker ended while it was asked, by no doing of ours."""


def _read_lines(stream: IO[str], lines: queue.SimpleQueue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")  # the process is gone


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what was not sent yet cannot be any more
                stream.close()


class _Worker:
    """One running ``math_worker.py``: killed when this object is dropped, ends by itself when the parent dies."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("math_worker.py")
        errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        # -P: the script's folder must not go on the path, where its neighbours would hide standard modules (http).
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            # A Ctrl-C in the terminal is for the run; the worker then ends by its closed pipe.
            start_new_session=True,
        )
        self.kill = weakref.finalize(self, _kill, self._process)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        # A thread that reads lets any thread wait with a limit, on every platform.
        threading.Thread(target=_read_lines, args=(self._process.stdout, self._lines), daemon=True).start()
        try:
            ready = self._lines.get(timeout=START_LIMIT_S)
        except queue.Empty:
            ready = ""
        if not ready:
            self.kill()
            errors.seek(0)
            raise GraderError(
                "the worker that compares formulas did not start; is math-verify installed? Its last words: "
                f"{errors.read()[-500:].strip() or '(none)'}"
            )
        errors.close()

    def ask(self, request: tuple[str, ...], limit_s: float) -> Any:
        """The result of an operation and its arguments.

        Raises:
            queue.Empty: there was none within the limit; the worker cannot be asked again.
            _WorkerDiedError: it was killed from outside.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([*request, limit_s]) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise _WorkerDiedError from None
        line = self._lines.get(timeout=limit_s)
        if not line:
            raise _WorkerDiedError
        return json.loads(line)


class Grader:
    """Compares answers with gold answers. Safe from any thread; the worker starts when it is first needed."""

    def __init__(self, limit_s: float = 5.0) -> None:
        """
        Args:
            limit_s: Seconds that one symbolic comparison may take; beyond, the answer is not graded.
        """
        require(limit_s > 0, f"limit_s={limit_s}", "a positive number of seconds")
        self.limit_s = limit_s
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._known: dict[tuple[str, ...], Any] = {}
        self._unanswered: Counter[tuple[str, ...]] = Counter()

    def grade(self, answer: str | None, question: Question) -> bool | None:
        """Whether ``answer`` is the question's gold answer.

        Args:
            answer: as extracted from the reasoner's text; None when it gave none, which is wrong, whatever the gold.
            question: its ``answer_type`` says how to compare.

        Returns:
            None when the comparison hit its limit: not graded, which is not the same as wrong.

        Raises:
            GraderError: a symbolic comparison was needed and its worker cannot start.
        """
        if answer is None or not answer.strip():
            return False
        return is_right(answer, question, self.decide)

    def value(self, text: str) -> float | None:
        r"""The number that a LaTeX text stands for: ``\frac{1}{2}``, ``2\pi``, ``45^2``, ``1,200``, ``50\%``.

        Parsed by latex2sympy's grammar, then evaluated; never by Python. Floats, so integers above 2^53 are rounded.

        Returns:
            None when it stands for no finite real number, is longer than ``MAX_ANSWER_CHARS``, or hit the limit.

        Raises:
            GraderError: the worker was needed and cannot start.
        """
        if _PLAIN_NUMBER.fullmatch(text):
            number = float(text)
            return number if math.isfinite(number) else None
        if len(text) > MAX_ANSWER_CHARS or not text.strip():
            return None
        return self._ask("value", text)

    def decide(self, answer: str, gold: str) -> bool | None:
        """Whether two formulas are equal by computer algebra; None when that hit its limit.

        Raises:
            GraderError: the worker cannot start.
        """
        verdict: bool | None = self._ask("equal", answer, gold)
        return verdict

    def _ask(self, *request: str) -> Any:
        with self._lock:
            # The captions of one group tend to lead to the same answer.
            if request in self._known:
                return self._known[request]
            # What hit the limit may have met a busy moment: it is asked again, a few times, and not remembered.
            if self._unanswered[request] >= TRIES:
                return None
            answered, result = self._ask_worker(request)
            if not answered:
                self._unanswered[request] += 1
                return None
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
                self._unanswered.clear()
            self._known[request] = result
            return result

    def _ask_worker(self, request: tuple[str, ...]) -> tuple[bool, Any]:
        """Whether the worker answered in time, and what."""
        # Twice: a worker may be killed for reasons of the machine's; one that dies of an expression dies again.
        for _ in range(2):
            if self._worker is None:
                self._worker = _Worker()
            try:
                return True, self._worker.ask(request, self.limit_s)
            except (queue.Empty, _WorkerDiedError) as fault:
                self._worker.kill()
                self._worker = None
                if isinstance(fault, queue.Empty):
                    break
        return False, None

    def close(self) -> None:
        """End the worker. A later comparison starts another."""
        with self._lock:
            if self._worker is not None:
                self._worker.kill()
                self._worker = None

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
