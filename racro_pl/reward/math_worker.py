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
FLOAT_DECIMALS = 14
"""Within sets and matrices, floats are compared at about all the decimals that a double holds."""
DIGITS = 30
"""Significant digits of two numbers that are compared."""


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
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from math_verify import verify
    from sympy import Expr, nan, simplify, zoo

    logging.disable(logging.CRITICAL)
    _limit_memory()
    # Only LaTeX parsing, which is a grammar: sympy's own parser of plain expressions is Python's eval. By default it
    # would make letters lower case: m/M would be 1.
    config = ConversionConfig(lowercase_symbols=False)

    def equal(answer: str, gold: str) -> bool | None:
        try:
            first, second = (latex2sympy(text, conversion_config=config).doit() for text in (answer, gold))
            if not isinstance(first, Expr) or not isinstance(second, Expr):
                # Sets, relations and matrices. Their time limits are signals; the parent's limit replaces them.
                return verify(first, second, float_rounding=FLOAT_DECIMALS, timeout_seconds=None, raise_on_error=True)
            difference = first - second
            if not difference.is_number:
                return first == second or simplify(difference) == 0
            sizes = [abs(side.evalf(DIGITS)) for side in (first, second)]
            if not all(size.is_finite for size in sizes):  # relative to 1/0, every difference would be small enough
                return bool(first == second and not first.has(nan, zoo))
            # Relative, so that 10^{-20} is not 10^{-19}; against an exact zero there is nothing relative.
            return bool(first == second or abs(difference.evalf(DIGITS)) <= max(sizes) * 10 ** (5 - DIGITS))
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
