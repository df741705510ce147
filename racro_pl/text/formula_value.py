"""The value of a formula at a point: a fraction where it is rational, else an mpmath number. Sizes are bounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from racro_pl.text.formula import Node

DIGITS = 60
"""Decimal digits of irrational values."""
_MAX_BITS = 40_000
"""Of a fraction's numerator or denominator; beyond, values are floats."""
_MAX_EXPONENT_BITS = 10**9
_MAX_FACTORIAL = 3_000


class UndefinedError(Exception):
    """A formula has no value at a point: a division by zero, or a number too large to write down."""


class TooLargeError(UndefinedError):
    """The value is beyond every number that another formula could be equal to."""


def evaluate(node: Node, env: Mapping[str, Fraction]) -> Any:
    """The value of a formula at a point: a Fraction where it is rational, else an mpmath number.

    Raises:
        UndefinedError: it has none.
    """
    kind = node[0]
    if kind == "number":
        return node[1]
    if kind == "symbol":
        return env[node[1]]
    if kind == "constant":
        mp = mp_context()
        return {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1), "infty": mp.inf}[node[1]]
    if kind == "call":
        return _call(node[1], [evaluate(part, env) for part in node[2:]])
    values = [evaluate(part, env) for part in node[1:]]
    try:
        return _OPERATIONS[kind](*values)
    except (ZeroDivisionError, ValueError, OverflowError):
        raise UndefinedError from None


def _plus(a: Any, b: Any) -> Any:
    return a + b if isinstance(a, Fraction) and isinstance(b, Fraction) else _defined(as_float(a) + as_float(b))


def minus(a: Any, b: Any) -> Any:
    """``a - b``, exact for fractions."""
    return a - b if isinstance(a, Fraction) and isinstance(b, Fraction) else _defined(as_float(a) - as_float(b))


def _times(a: Any, b: Any) -> Any:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _bounded(a * b)
    return _defined(as_float(a) * as_float(b))


def divided(a: Any, b: Any) -> Any:
    """``a / b``, exact for fractions; raises ``UndefinedError`` for a zero ``b``."""
    if b == 0:
        raise UndefinedError
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _bounded(a / b)
    return _defined(as_float(a) / as_float(b))


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(exponent, Fraction) and exponent.denominator == 1 and isinstance(base, Fraction):
        if base == 0 and exponent < 0:
            raise UndefinedError
        bits = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(int(exponent))
        if base in (0, 1, -1) or bits <= _MAX_BITS:
            return base ** int(exponent)
    exact = _exact_root(base, exponent)
    if exact is not None:
        return exact
    a, b = as_float(base), as_float(exponent)
    mp = mp_context()
    if a == 0 and (getattr(b, "real", b) <= 0 or isinstance(b, mp.mpc)):
        raise UndefinedError
    if a == 0:
        return Fraction(0)  # mpmath would write the exponent's digits down, however many there are
    if abs(b) * (abs(mp.log(abs(a))) + 1) > _MAX_EXPONENT_BITS:
        raise TooLargeError
    return _defined(a**b)


def _exact_root(base: Any, exponent: Any) -> Fraction | None:
    """``4^{1/2}`` is 2, and ``(-8)^{1/3}`` is -2, as in school."""
    if not isinstance(base, Fraction) or not isinstance(exponent, Fraction) or not 1 < exponent.denominator <= 12:
        return None
    if base < 0 and exponent.denominator % 2 == 0 or abs(exponent.numerator) > 100:
        return None
    root = exponent.denominator
    over, under = (_integer_root(part, root) for part in (abs(base.numerator), base.denominator))
    if over is None or under is None or (over == 0 and exponent < 0):
        return None
    return (-1 if base < 0 else 1) ** exponent.numerator * Fraction(over, under) ** exponent.numerator


def _integer_root(number: int, root: int) -> int | None:
    if number.bit_length() > 900:
        return None
    guess = round(number ** (1 / root))
    return next((near for near in (guess - 1, guess, guess + 1) if near >= 0 and near**root == number), None)


def _factorial(value: Any) -> Any:
    if not isinstance(value, Fraction) or value.denominator != 1 or value < 0:
        raise UndefinedError
    if value > _MAX_FACTORIAL:
        if value > 10**12:
            raise TooLargeError
        return mp_context().factorial(int(value))
    product = 1
    for factor in range(2, int(value) + 1):
        product *= factor
    return Fraction(product)


def _binomial(n: Any, k: Any) -> Any:
    if not all(isinstance(x, Fraction) and x.denominator == 1 and 0 <= x <= 1000 for x in (n, k)) or k > n:
        raise UndefinedError
    return _factorial(n) / _factorial(k) / _factorial(n - k)


def _call(name: str, arguments: list[Any]) -> Any:
    mp = mp_context()
    value = arguments[0]
    if name == "abs":
        return abs(value)
    if name in ("floor", "ceil"):
        return _rounded(value, up=name == "ceil")
    x = as_float(value)
    if name in _RECIPROCAL:
        return divided(Fraction(1), _call(_RECIPROCAL[name], arguments))
    if name == "log":
        base = as_float(arguments[1]) if len(arguments) > 1 else mp.mpf(10)
        if x == 0 or base == 0 or base == 1:
            raise UndefinedError
        return _log_exact(arguments) if _log_exact(arguments) is not None else _defined(mp.log(x) / mp.log(base))
    if name == "ln" and x == 0:
        raise UndefinedError
    if abs(x) > 10**9 and name not in ("ln",):
        raise UndefinedError
    try:
        return _defined(
            getattr(mp, {"ln": "log", "arcsin": "asin", "arccos": "acos", "arctan": "atan"}.get(name, name))(x)
        )
    except (ZeroDivisionError, ValueError, OverflowError):
        raise UndefinedError from None


def _rounded(value: Any, up: bool) -> Any:
    """The whole number below a value, or above it."""
    if isinstance(value, Fraction):
        return Fraction(math.ceil(value) if up else math.floor(value))
    mp = mp_context()
    if isinstance(value, mp.mpc) or mp.isinf(value):
        raise UndefinedError
    if abs(value) > mp.mpf(10) ** DIGITS:
        return value  # its digits end before the point
    near = mp.nint(value)  # what 60 digits leave of a whole number counts as one
    whole = near if abs(value - near) < mp.mpf(10) ** -(DIGITS - 10) else mp.ceil(value) if up else mp.floor(value)
    return Fraction(int(whole))


def _log_exact(arguments: list[Any]) -> Fraction | None:
    base = arguments[1] if len(arguments) > 1 else Fraction(10)
    value = arguments[0]
    if not isinstance(value, Fraction) or not isinstance(base, Fraction) or base <= 1 or value <= 0:
        return None
    near = round(float(mp_context().log(as_float(value)) / mp_context().log(as_float(base))))
    return Fraction(near) if abs(near) < 300 and base**near == value else None


_RECIPROCAL = {"cot": "tan", "sec": "cos", "csc": "sin"}
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "+": _plus, "-": minus, "*": _times, "/": divided, "^": _power, "!": _factorial, "binom": _binomial,
    "neg": lambda value: -value,
}  # fmt: skip


def _bounded(value: Fraction) -> Any:
    bits = max(value.numerator.bit_length(), value.denominator.bit_length())
    return value if bits <= 4 * _MAX_BITS else as_float(value)


def _defined(value: Any) -> Any:
    mp = mp_context()
    if mp.isnan(value):
        raise UndefinedError
    return value.real if isinstance(value, mp.mpc) and value.imag == 0 else value


def as_float(value: Any) -> Any:
    """A value as an mpmath number."""
    return mp_context().mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


@lru_cache(maxsize=1)
def mp_context() -> Any:
    """Arithmetic of ``DIGITS`` digits."""
    # Imported when the first irrational number needs it: most answers are integers. A context of our own, because
    # precision is a state of the context.
    import mpmath

    context = mpmath.MPContext()
    context.dps = DIGITS
    return context
