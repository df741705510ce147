r"""Equality of formulas by identity testing: parse both, evaluate both at points no one chose, compare.

Two formulas of the field's kind (polynomials, fractions, roots, trigonometric functions, logarithms) that agree at
three generic points to 50 digits are the same formula (Schwartz 1980 and Zippel 1979 for the polynomial case).
Rational values are exact fractions; others are mpmath numbers of 60 digits. Every size is bounded, so that no text
takes long; what the grammar does not know raises ``NotAlgebraError`` and is left to a computer algebra system.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from racro_pl.text.formula import Node, NotAlgebraError, parse_formula
from racro_pl.text.formula_value import TooLargeError, UndefinedError, as_float, divided, evaluate, minus, mp_context

_AGREE = 50
_POINTS = 3


def formulas_equal(first: str, second: str) -> bool | None:
    """Whether two normalised formulas are equal; None when the grammar knows one of them not, or neither has a value.

    Letters are variables and case-sensitive; ``e``, ``i`` and ``\\pi`` are the constants.
    """
    try:
        a, b = parse_formula(first), parse_formula(second)
    except NotAlgebraError:
        return None
    return _same(lambda env: evaluate(a, env), lambda env: evaluate(b, env), _names(a) | _names(b), _has_abs(a, b))


def is_formula(text: str) -> bool:
    """Whether the grammar knows a text."""
    try:
        parse_formula(text)
    except NotAlgebraError:
        return False
    return True


def is_proportion(terms: Sequence[str]) -> bool:
    """Whether terms can stand in a ratio: none is infinite or undefined, and not all of them are 0.

    ``0:0`` and ``\\infty:\\infty`` would be every ratio, by their cross products.
    """
    known = [formulas_equal(term, "0") for term in terms if is_formula(term)]
    nothing = len(known) == len(terms) and all(known)
    return not (nothing or None in known or any(r"\infty" in term for term in terms))


def equations_equal(first: tuple[str, str], second: tuple[str, str]) -> bool | None:
    """Whether two equations, each given by its two sides, say the same: their differences are proportional."""
    try:
        sides = [parse_formula(side) for side in (*first, *second)]
    except NotAlgebraError:
        return None
    names = frozenset().union(*map(_names, sides))
    if not names:
        return None
    ratios = []
    for env in _points(names, negative=False):
        try:
            a, b, c, d = (evaluate(side, env) for side in sides)
            above, below = minus(a, b), minus(c, d)
            if any(_is_zero(side) or not mp_context().isfinite(as_float(side)) for side in (above, below)):
                return None  # "\infty = x" would be proportional to every equation
            ratios.append(divided(above, below))
        except UndefinedError:
            return None
    return all(_close(ratio, ratios[0]) for ratio in ratios[1:])


def value_of(text: str) -> Any:
    """The value of a formula without variables: a Fraction, or an mpmath number; None when it has none."""
    try:
        node = parse_formula(text)
        return None if _names(node) else evaluate(node, {})
    except (NotAlgebraError, UndefinedError):
        return None


def _same(
    first: Callable[[Mapping[str, Fraction]], Any],
    second: Callable[[Mapping[str, Fraction]], Any],
    names: frozenset[str],
    negative: bool,
) -> bool | None:
    agreed = 0
    for env in _points(names, negative):
        values = []
        for formula in (first, second):
            try:
                values.append(formula(env))
            except TooLargeError:
                values.append(None)
            except UndefinedError:
                return None
        if values[0] is None or values[1] is None:
            return None if values[0] is values[1] else False
        if not _close(*values):
            return False
        agreed += 1
    return agreed > 0


def _points(names: frozenset[str], negative: bool) -> Iterator[dict[str, Fraction]]:
    if not names:
        yield {}
        return
    for index in range(_POINTS + negative):
        sign = -1 if index == _POINTS else 1
        yield {
            name: sign * (1 + Fraction(zlib.crc32(f"{name} {index}".encode("utf-8", "replace")) % 9973 + 1, 9973))
            for name in names
        }


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    mp = mp_context()
    first, second = as_float(a), as_float(b)
    if mp.isinf(first) or mp.isinf(second):
        return bool(first == second)
    difference, size = abs(first - second), max(abs(first), abs(second))
    # Against an exact zero there is no relative difference: what 60 digits leave of sin(pi) counts as zero.
    limit = mp.mpf(10) ** -_AGREE
    return bool(difference <= limit * (1 if 0 in (a, b) and size < limit else size))


def _is_zero(value: Any) -> bool:
    return bool(value == 0) if isinstance(value, Fraction) else bool(abs(value) < mp_context().mpf(10) ** -_AGREE)


@lru_cache(maxsize=20_000)
def _names(node: Node) -> frozenset[str]:
    if node[0] == "symbol":
        return frozenset([node[1]])
    return frozenset().union(*(_names(part) for part in node[1:] if isinstance(part, tuple)))


def _has_abs(*nodes: Node) -> bool:
    return any(
        "abs" in (node[0], node[1]) or _has_abs(*(p for p in node[1:] if isinstance(p, tuple))) for node in nodes
    )
