r"""Units after a value: read, and converted where both sides name one.

A table of our own: what answers in the benchmarks carry are a few dozen units in many spellings (``sq. ft.``,
``m\cdot s^{-2}``, ``平方厘米``).
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

# Symbol: its dimension, its size in the dimension's base unit, other spellings. Symbols are case-sensitive, words not.
_TABLE: dict[str, tuple[str, Fraction, str]] = {
    "mm": ("length", Fraction(1, 1000), "millimeter millimetre 毫米"),
    "cm": ("length", Fraction(1, 100), "centimeter centimetre 厘米"),
    "dm": ("length", Fraction(1, 10), "decimeter decimetre 分米"), "m": ("length", Fraction(1), "meter metre 米"),
    "km": ("length", Fraction(1000), "kilometer kilometre 千米 公里"),
    "in": ("length", Fraction(254, 10_000), "inch inches"), "ft": ("length", Fraction(3048, 10_000), "foot feet"),
    "yd": ("length", Fraction(9144, 10_000), "yard"), "mi": ("length", Fraction(1_609_344, 1000), "mile"),
    "nm": ("length", Fraction(1, 10**9), "nanometer"), "\\mu m": ("length", Fraction(1, 10**6), "micrometer"),
    "mg": ("mass", Fraction(1, 10**6), "milligram"), "g": ("mass", Fraction(1, 1000), "gram 克"),
    "kg": ("mass", Fraction(1), "kilogram kilo 千克 公斤"), "t": ("mass", Fraction(1000), "tonne ton"),
    "lb": ("pound", Fraction(1), "lbs pound"), "oz": ("pound", Fraction(1, 16), "ounce"),
    "ms": ("time", Fraction(1, 1000), "millisecond"), "s": ("time", Fraction(1), "sec second 秒"),
    "min": ("time", Fraction(60), "mins minute 分钟"), "h": ("time", Fraction(3600), "hr hrs hour 小时"),
    "day": ("time", Fraction(86_400), "days 天"), "week": ("time", Fraction(604_800), ""),
    "month": ("month", Fraction(1), ""), "year": ("month", Fraction(12), "yr yrs 年"),
    "mL": ("length3", Fraction(1, 10**6), "ml milliliter millilitre 毫升"),
    "L": ("length3", Fraction(1, 1000), "l liter litre 升"), "gal": ("gallon", Fraction(1), "gallon"),
    "ha": ("length2", Fraction(10_000), "hectare"), "acre": ("acre", Fraction(1), ""),
    "rpm": ("rpm", Fraction(1), ""), "N": ("newton", Fraction(1), "newton"), "J": ("joule", Fraction(1), "joule"),
    "kJ": ("joule", Fraction(1000), ""), "W": ("watt", Fraction(1), "watt"),
    "kW": ("watt", Fraction(1000), "kilowatt"), "V": ("volt", Fraction(1), "volt"),
    "A": ("ampere", Fraction(1), "amp ampere"), "mA": ("ampere", Fraction(1, 1000), ""),
    "\\Omega": ("ohm", Fraction(1), "ohm"), "Hz": ("hertz", Fraction(1), "hertz"),
    "kHz": ("hertz", Fraction(1000), ""), "Pa": ("pascal", Fraction(1), "pascal"),
    "kPa": ("pascal", Fraction(1000), ""), "K": ("kelvin", Fraction(1), "kelvin"),
    "mol": ("mole", Fraction(1), "mole"), "C": ("coulomb", Fraction(1), "coulomb"), "eV": ("eV", Fraction(1), ""),
    "T": ("tesla", Fraction(1), "tesla"), "cal": ("cal", Fraction(1), "calorie"),
    "dB": ("dB", Fraction(1), "decibel"), "degree": ("degree", Fraction(1), "deg 度"),
    "rad": ("radian", Fraction(1), "radian"), "celsius": ("celsius", Fraction(1), "degreeC"),
    "fahrenheit": ("fahrenheit", Fraction(1), "degreeF"), "dollar": ("dollar", Fraction(1), "usd 美元"),
    "cent": ("dollar", Fraction(1, 100), ""), "euro": ("euro", Fraction(1), "eur €"),
    "£": ("sterling", Fraction(1), "gbp"), "yuan": ("yuan", Fraction(1), "rmb 元 ¥"), "unit": ("", Fraction(1), ""),
}  # fmt: skip
_BY_SYMBOL = {symbol.replace(" ", ""): (dimension, size) for symbol, (dimension, size, _) in _TABLE.items()}
_BY_WORD = {
    spelled.lower(): (dimension, size)
    for symbol, (dimension, size, words) in _TABLE.items()
    for word in (*words.split(), *([symbol] if len(symbol) > 1 else []))
    for spelled in (word, f"{word}s")
}
_PIECE = re.compile(
    r"\s*(?:(?P<per>/|\bper\b|每)|(?P<times>\\cdot(?![A-Za-z])|\\times(?![A-Za-z])|\*|-(?=[A-Za-z]))"
    r"|(?P<power>square|sq\.?(?![A-Za-z])|cubic|cu\.?(?![A-Za-z])|平方|立方)"
    r"|(?P<name>degree ?[CF](?![A-Za-z])|\\mu ?m(?!\s*[A-Za-z])|\\Omega(?![A-Za-z])|[A-Za-z]+\.?"
    r"|[\u4e00-\u9fff]+|[€£¥])"
    r"(?:\s*\^\s*\{?\s*(?P<exponent>-?\d)\s*\}?|(?P<digit>[23])(?!\d))?(?P<squared>\s+squared|\s+cubed)?)\s*",
    re.IGNORECASE,
)
_SPEEDS = {"mph": "mi/h", "kph": "km/h", "kmh": "km/h", "kmph": "km/h"}
_SPEED = re.compile(r"(?<![A-Za-z])(?:mph|kph|kmh|kmph)(?![A-Za-z])", re.IGNORECASE)
_TEMPERATURE = re.compile(r"degrees?\s+(celsius|fahrenheit)", re.IGNORECASE)
_RUN = re.compile(r"(?<![A-Za-z\\])(?:[A-Za-z€£¥]|\\mu ?m|\\Omega|[\u4e00-\u9fff])(?:[A-Za-z]*|[\u4e00-\u9fff]*)")
_PART = r"(?:\d+(?:\.\d+)?\s*[A-Za-z]+\.?)"
_COMPOUND = re.compile(rf"{_PART}(?:\s+(?:and\s+)?{_PART}){{1,2}}")
_ADJECTIVE = re.compile(
    r"\s+(?:long|wide|tall|high|deep|away|apart|old|each|total|(?:in|of) (?:total|all|length|width|height|area))$"
)
_TIGHT = re.compile(r"[\d)}\]|]$|\\pi$")
# Words after a number that change it, or add another value: no nouns.
_NO_NOUN = re.compile(
    r"(?i:or|and|to|is|are|was|wrong|incorrect|false|more|less|fewer|than|least|most|not|except|but|between|from|plus|minus|over|if|when|by"
    r"|above|below|unless|either|both|half|halves|thirds?|quarters?|dozens?|hundreds?|thousands?|[mbtr]+illions?"
    r"|percent|pi|mod|sqrt|i|x)|am|pm"
)
_NOUN = re.compile(r"\s*(?:[A-Za-z]{2,}\.?['’]?[a-z]?(?:[\s-]+|$)){1,5}|[\u4e00-\u9fff]{1,6}")


@dataclass(frozen=True)
class Unit:
    """What a value is measured in."""

    dimension: tuple[tuple[str, int], ...]
    """Dimensions with their exponents, sorted; empty for ``units``. What is counted ("apples") is a dimension too."""
    size: Fraction
    """In base units of the dimension."""


NOUN = Unit((("things", 1),), Fraction(1))


@lru_cache(maxsize=20_000)
def split_unit(text: str) -> tuple[str, Unit | None]:
    r"""A normalised answer's value and its unit; None when it has none.

    A unit of one letter needs a space before it: ``5 m`` is a length, ``5m`` may be a product.

    >>> split_unit("5 km/h")
    ('5', Unit(dimension=(('length', 1), ('time', -1)), size=Fraction(5, 18)))
    """
    for run in _RUN.finditer(text):
        value = text[: run.start()].rstrip()
        if not value or value[-1] in "+-*/^_(=<>,:" or value.endswith(("\\times", "\\cdot", "\\le", "\\ge", "\\cup")):
            continue
        tail = _ADJECTIVE.sub("", text[run.start() :])
        letter = (tail[0].isascii() and len(tail.rstrip(".")) == 1) or re.match(
            r"[A-Za-z](?![A-Za-z]|\.?\s*/)", tail
        ) is not None
        if letter and (run.start() == len(value) or not _TIGHT.search(value)):
            continue
        unit = parse_unit(tail)
        if unit is not None:
            return value, unit
        if re.fullmatch(r"[-+]?[\d.,/ ]*\d|.*\\frac\s*\{\d+\}\s*\{\d+\}", value) and is_noun(tail):
            return value, NOUN
    return text, None


def compound(text: str) -> tuple[Fraction, Unit] | None:
    """``1 h 30 min`` or ``5 ft 6 in``: the sum, in the last unit; None for anything else or where units do not shrink.

    >>> compound("1 hour and 30 minutes")
    (Fraction(90, 1), Unit(dimension=(('time', 1),), size=Fraction(60, 1)))
    """
    if not _COMPOUND.fullmatch(text):
        return None
    parts = [
        (Fraction(count), parse_unit(name))
        for count, name in re.findall(r"([\d.]+)\s*([A-Za-z]+)", text.replace(" and ", " "))
    ]
    units = [unit for _, unit in parts if unit is not None and unit.dimension]
    if len(units) < len(parts) or len({unit.dimension for unit in units}) > 1:
        return None
    if any(one.size <= other.size for one, other in itertools.pairwise(units)):
        return None
    return sum(count * unit.size for (count, _), unit in zip(parts, units, strict=True)) / units[-1].size, units[-1]


def tight_unit(text: str) -> tuple[str, Unit | None]:
    """As ``split_unit``, for a text that is compared with a quantity: ``5m`` is then a length too."""
    match = re.fullmatch(r"(.*[\d)}])([A-Za-z])(\^?\{?[23]\}?)?", text)
    unit = parse_unit(match[2] + (match[3] or "")) if match else None
    return (match[1], unit) if match and unit else split_unit(text)


@lru_cache(maxsize=5_000)
def parse_unit(text: str) -> Unit | None:
    r"""The unit that a text is, as a whole: ``cm``, ``sq. ft.``, ``m/s^2``, ``平方厘米``; None for anything else."""
    if len(text) > 60:
        return None
    text = _TEMPERATURE.sub(r"\1", text)
    text = _SPEED.sub(lambda match: _SPEEDS[match[0].lower()], text)
    dimensions: dict[str, int] = {}
    size, place, sign, power = Fraction(1), 0, 1, 1
    last_was_name = False
    while place < len(text):
        piece = _PIECE.match(text, place)
        if piece is None or piece.end() == place:
            return None
        place = piece.end()
        if piece["per"] or piece["times"]:
            sign = -1 if piece["per"] else sign
            last_was_name = False
        elif piece["power"]:
            power = 3 if piece["power"][0].lower() in "c立" else 2
        else:
            found = _named(piece["name"], bool(dimensions))
            if found is None:
                return None
            exponent = int(piece["exponent"] or piece["digit"] or 1) * power * sign
            if piece["squared"]:
                exponent *= 3 if "cubed" in piece["squared"].lower() else 2
            name, measure = found
            _add(dimensions, name, exponent)
            size *= measure**exponent
            power, last_was_name = 1, True
    if not last_was_name or power != 1:
        return None
    return Unit(tuple(sorted((name, count) for name, count in dimensions.items() if count)), size)


def _named(name: str, later: bool) -> tuple[str, Fraction] | None:
    bare = name.rstrip(".").replace(" ", "")
    if later and bare in ("in", "a", "A", "C"):
        return None
    return _BY_SYMBOL.get(bare) or _BY_WORD.get(bare.lower())


def _add(dimensions: dict[str, int], name: str, exponent: int) -> None:
    if not name:
        return
    base, times = (name[:-1], int(name[-1])) if name[-1].isdigit() else (name, 1)
    dimensions[base] = dimensions.get(base, 0) + exponent * times


def is_noun(text: str) -> bool:
    """Whether words after a number only say what is counted: ``apples``, but not ``or more`` and not ``million``."""
    return _NOUN.fullmatch(text) is not None and not any(
        _NO_NOUN.fullmatch(word) for word in re.findall(r"[A-Za-z]+", text)
    )
