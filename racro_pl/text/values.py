r"""What a written answer is: a quantity, a ratio, a time, an interval, a list, an equation, words, or a formula.

Reading is by form alone; ``comparison`` says when two of them are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from racro_pl.text.units import Unit


@dataclass(frozen=True)
class Formula:
    """A value, exact where it is a written number, with its unit."""

    text: str
    number: Fraction | None
    unit: Unit | None = None
    percent: bool = False


@dataclass(frozen=True)
class Words:
    """A text that is no mathematics."""

    text: str


@dataclass(frozen=True)
class Ratio:
    """``3:1``, ``1:2:3``, ``3 to 1``."""

    terms: tuple[str, ...]


@dataclass(frozen=True)
class Clock:
    """``5:30 pm``; without am or pm it may be a ratio as well."""

    minutes: int
    half: str
    """``am``, ``pm``, or empty."""


@dataclass(frozen=True)
class Interval:
    """One piece of a line; ends are texts, an infinite one ``\\infty`` or ``-\\infty``."""

    low: str
    high: str
    brackets: str


@dataclass(frozen=True)
class Collection:
    """Several values. ``kind``: ``list`` (bare), ``()``, ``[]``, ``{}``, ``cup`` (a union), or ``matrix``."""

    kind: str
    items: tuple[Value, ...]


@dataclass(frozen=True)
class Equation:
    """``y = 2x+1``: two sides; ``value`` is what the left one, when it is a name, is said to be."""

    left: str
    right: str
    name: str
    """The left side when it is a name; empty for an equation proper."""
    value: Value | None


Value = Formula | Words | Ratio | Clock | Interval | Collection | Equation
