r"""Exact values of written numbers: digits, fractions, powers of ten, number words."""

from __future__ import annotations

import re
from fractions import Fraction

_MAX_CHARS = 60
_MAX_EXPONENT = 400
_ONES = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen",
)
_TENS = re.findall(r"\w+", "twenty thirty forty fifty sixty seventy eighty ninety")
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_WORDS = {
    **{word: value for value, word in enumerate(_ONES)},
    **{word: 10 * value for value, word in enumerate(_TENS, start=2)},
}
_PARTS = {"half": Fraction(1, 2), "third": Fraction(1, 3), "quarter": Fraction(1, 4)}
_SCALED = re.compile(rf"(?P<number>.+?)\s*(?P<scale>{'|'.join(_SCALES)})s?", re.IGNORECASE)
_CHINESE = {char: value for value, char in enumerate("零一二三四五六七八九十")}

_SIGN = r"(?P<sign>[-+]?)\s*"
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?:'\d{3})+|\d+)"
_NUMBERS = [
    re.compile(_SIGN + pattern, re.ASCII)
    for pattern in [
        rf"(?P<decimal>{_DIGITS}(?:\.\d*)?|\.\d+)"
        r"(?:(?:\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*\{?\s*|[eE])(?P<exponent>[-+]?\d{1,3})\s*\}?)?",
        r"(?:(?P<whole>\d+)\s+)?(?P<over>\d+)\s*/\s*(?P<under>\d+)",
        r"(?P<whole>\d+)?\s*\\frac\s*\{\s*(?P<sign2>-?)(?P<over>\d+)\s*\}\s*\{\s*(?P<under>\d+)\s*\}",
        r"(?P<whole>\d+)?\s*\\frac\s*(?P<over>\d)\s*(?P<under>\d)",
        r"(?P<decimal>\d*\.\d*)\\(?:overline|bar|dot)\s*\{?(?P<repeated>\d{1,12})\}?",
    ]
]


def parse_number(text: str) -> Fraction | None:
    r"""The exact value of a written number: ``1,234``, ``12.50``, ``-3/4``, ``1 1/2``, ``\frac{1}{2}``, ``3e4``,
    ``3\times10^4``; None for anything else."""
    if len(text) > _MAX_CHARS or not any(char in "0123456789" for char in text):
        return None
    for pattern in _NUMBERS:
        match = pattern.fullmatch(text)
        if match is not None:
            value = _value(match.groupdict())
            return -value if value is not None and match["sign"] == "-" else value
    return None


def _value(found: dict[str, str | None]) -> Fraction | None:
    decimal, repeated = found.get("decimal"), found.get("repeated")
    if decimal is not None:
        plain = re.sub("[,']", "", decimal)
        value = Fraction(plain.rstrip(".") or "0") if plain != "." else Fraction(0)
        if repeated:
            places = len(plain.partition(".")[2])
            return value + Fraction(int(repeated), (10 ** len(repeated) - 1) * 10**places)
        exponent = int(found.get("exponent") or 0)
        return None if abs(exponent) > _MAX_EXPONENT else value * Fraction(10) ** exponent
    over, under = int(found["over"] or 0), int(found["under"] or 0)
    if under == 0:
        return None
    value = Fraction(over, under)
    return int(found.get("whole") or 0) + (-value if found.get("sign2") else value)


def number_of_words(text: str) -> Fraction | None:
    """The value of a number in words, or in digits and a scale: ``twelve``, ``twenty-one``, ``5 million``, ``a dozen``.

    >>> number_of_words("three hundred"), number_of_words("5 dozen"), number_of_words("one half")
    (Fraction(300, 1), Fraction(60, 1), Fraction(1, 2))
    """
    if len(text) > _MAX_CHARS:
        return None
    lowered = text.lower().strip()
    if lowered.startswith("-"):
        positive = number_of_words(lowered[1:])
        return None if positive is None else -positive
    if len(lowered) == 1 and lowered in _CHINESE:
        return Fraction(_CHINESE[lowered])
    if match := _SCALED.fullmatch(lowered):
        count = match["number"]
        number = Fraction(1) if count in ("a", "an") else parse_number(count) or number_of_words(count)
        return None if number is None else number * _SCALES[match["scale"]]
    if lowered.endswith(" and a half"):
        whole = parse_number(lowered[:-11]) or number_of_words(lowered[:-11])
        return None if whole is None else whole + Fraction(1, 2)
    words = [word for word in re.split(r"[\s-]+", lowered) if word]
    if not words or len(words) > 4:
        return None
    if words[0] in ("a", "an") and len(words) == 2:
        words[0] = "one"
    if words[-1].rstrip("s") in _PARTS or words[-1] == "halves":
        part = _PARTS["half" if words[-1] == "halves" else words[-1].rstrip("s")]
        count = number_of_words(" ".join(words[:-1])) if len(words) > 1 else None
        return part if words == ["half"] else None if count is None else count * part
    return _small_number(words)


def _small_number(words: list[str]) -> Fraction | None:
    if len(words) == 1:
        word = words[0]
        return Fraction(_WORDS[word]) if word in _WORDS else Fraction(_SCALES[word]) if word in _SCALES else None
    if len(words) == 2 and words[0] in _TENS and words[1] in _ONES[1:10]:
        return Fraction(_WORDS[words[0]] + _WORDS[words[1]])
    if words[1:2] == ["hundred"]:
        rest = words[3:] if words[2:3] == ["and"] else words[2:]
        hundreds, more = _small_number(words[:1]), _small_number(rest) if rest else Fraction(0)
        return None if hundreds is None or more is None else hundreds * 100 + more
    return None
