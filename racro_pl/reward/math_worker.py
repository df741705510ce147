"""The process in which symbolic mathematics runs. Started by ``grader.py`` as a script; never imported.

One JSON line in, one JSON line out:

- ``["equal", answer, gold, limit_s]``: ``true``, ``false``, or ``null`` when it ran out of memory or stack.
- ``["value", text, limit_s]``: the number that a LaTeX text stands for, or ``null`` when it stands for none.

It imports math-verify and its LaTeX parser alone, so that a restart costs a second and not a torch import.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
from collections.abc import Callable

MEMORY_LIMIT = 4 * 2**30
"""Bytes of address space: 9^{9^9} must exhaust this process and not the machine."""
# Floats are compared at 14 decimals, about all that a double holds: no tolerance beyond rounding.
FLOAT_DECIMALS = 14


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows; the time limit then has to do
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def main() -> None:
    """Answer comparisons until the pipe closes, which it does when the parent dies."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not get between the replies

    from latex2sympy2_extended import latex2sympy
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    _limit_memory()
    # Only LaTeX parsing, which is a grammar. math-verify's plain expressions go through sympy's parse_expr, i.e. eval.
    config = [LatexExtractionConfig(boxed_match_priority=-1)]

    def equal(answer: str, gold: str) -> bool | None:
        # Their timeouts are signals and work on a main thread only; the parent's limit replaces them.
        try:
            parsed = [
                parse(f"${text}$", config, fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=True)
                for text in (gold, answer)
            ]
            if not all(parsed):
                return False
            return verify(*parsed, float_rounding=FLOAT_DECIMALS, timeout_seconds=None, raise_on_error=True)
        except (MemoryError, RecursionError):
            return None
        except Exception:  # a parser that fails on junk has not found the answers equal
            return False

    def value(text: str) -> float | None:
        try:
            number = latex2sympy(text)
            # Symbols, relations, sets and matrices have no value. Complex numbers make float() fail.
            if number.free_symbols or not number.is_number:
                return None
            found = float(number.doit().evalf())
            return found if math.isfinite(found) else None
        except Exception:  # no LaTeX, too deep, too big: no number either way
            return None

    def reply(value: object) -> None:
        replies.write(json.dumps(value) + "\n")
        replies.flush()

    operations: dict[str, Callable[..., object]] = {"equal": equal, "value": value}
    reply("ready")
    for line in sys.stdin:
        operation, *arguments, limit_s = json.loads(line)
        # Should the parent be gone and this never end: SIGALRM kills, even inside C code.
        if hasattr(signal, "alarm"):
            signal.alarm(int(limit_s) + 5)
        result = operations[operation](*arguments)
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        reply(result)


if __name__ == "__main__":
    main()
