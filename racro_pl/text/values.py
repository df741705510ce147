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


def same_time(answer: Value, gold: Value) -> bool:
    """Whether both are times, and the same; a time without am or pm is either. ``5 o'clock`` is 5, too."""
    if isinstance(answer, Clock) and isinstance(gold, Formula) and gold.unit is None and not gold.percent:
        return answer.minutes % 60 == 0 and gold.number == answer.minutes // 60
    if not isinstance(answer, Clock) or not isinstance(gold, Clock):
        return False
    if bool(answer.half) != bool(gold.half):
        written, bare = (answer, gold) if answer.half else (gold, answer)
        return bare.minutes in (written.minutes, _of_day(written))
    return _of_day(answer) == _of_day(gold) if answer.half else answer.minutes == gold.minutes


def _of_day(time: Clock) -> int:
    half_day = 12 * 60
    return time.minutes % half_day + (half_day if time.half == "pm" else 0)


def as_ratio(value: Value) -> Value:
    """``3:16`` as a ratio; anything else as it is."""
    if isinstance(value, Clock) and not value.half:
        return Ratio((str(value.minutes // 60), str(value.minutes % 60)))
    return value
