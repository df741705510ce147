"""Is an answer right? ``text.verdict`` says so; what it leaves open is asked of a computer algebra system.

Nearly every answer is decided without one. The others (sums, integrals, limits) go to math-verify's parser and sympy
in a process of its own, because a symbolic comparison may run for ever and can only be stopped from outside.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from racro_pl.text.latex import MAX_ANSWER_CHARS
from racro_pl.text.verdict import is_right
from racro_pl.types import Question, require
from racro_pl.worker_process import WorkerDiedError, WorkerProcess

WORKER = Path(__file__).with_name("math_worker.py")
TRIES = 3
"""How often a comparison that hits its limit, or kills its worker, is asked; beyond, it stays ungraded."""
_REMEMBERED = 10_000
_PLAIN_NUMBER = re.compile(r"-?\d{1,300}(?:\.\d{1,300})?", re.ASCII)


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
        self._worker: WorkerProcess | None = None
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
            RacroError: a symbolic comparison was needed and its worker cannot start.
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
            RacroError: the worker was needed and cannot start.
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
            RacroError: the worker cannot start.
        """
        return self._ask("equal", answer, gold)

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
            if self._worker is None or not self._worker.alive:
                self._worker = WorkerProcess(WORKER, "compares formulas", "math-verify")
            try:
                return True, self._worker.ask([*request, self.limit_s], self.limit_s)
            except TimeoutError:
                break
            except WorkerDiedError:
                continue
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
