r"""Exact equality of two written answers, as far as strings and rational numbers can decide it.

Normalisation follows the graders of the MATH and PRM800K line, which the reference implementation uses: ``\text{}``,
``\left``, ``^\circ``, ``\%``, units and an ``x =`` in front do not count, ``\frac12`` is ``\frac{1}{2}``. Numbers
are compared exactly, without tolerance. Tuples and lists are ordered, and their lengths and brackets must match.
What is left open (``2\sqrt3`` against ``\sqrt{12}``) is for a computer algebra system, handed in as ``decide``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

MAX_ANSWER_CHARS = 500
"""Longer answers are compared as strings alone: nothing of that length is a final answer."""
_MAX_NUMBER_CHARS = 60
_MAX_EXPONENT = 60
_MAX_NESTING = 20
"""Font macros within font macros that are taken off; a text of nothing else would otherwise take minutes."""

_UNICODE = str.maketrans(
    {"−": "-", "–": "-", "π": r"\pi ", "°": r"^\circ", "×": r"\times ", "·": r"\cdot ", "√": r"\sqrt ", "∞": r"\infty ",
     "²": "^2", "³": "^3", "≤": r"\le ", "≥": r"\ge ", "％": "%", "，": ",", "\u00a0": " ", "\u202f": " "}
)  # fmt: skip
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
_TEXT_MACRO = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mathsf|mbox|operatorname)\s*\{([^{}]*)\}"
)
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\(?:left|right|displaystyle|limits|big[lr]?|Big[lr]?)(?![A-Za-z])", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"(?<=\d)\\,(?=\d{3})|\\!|\{,\}(?=\d{3})", ""),
        (r"\\[,;:> ]|\\q?quad(?![A-Za-z])|~", " "),
        (r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])", " degree"),
        (r"\\([%$#&])", r"\1"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*(\d)", r"\1{\2}"),
        (r"\\sqrt\s*(\d+|[A-Za-z](?![A-Za-z]))", r"\\sqrt{\1}"),
    ]
]
_ASSIGNMENT = re.compile(
    r"^(?:[A-Za-z]{1,2}|[A-Za-z]_\{?\w\}?|\\(?:theta|alpha|beta|angle\s*[A-Z]{1,3}))\s*=\s*(?=[^=]+$)"
)
_LOOSE_SPACE = re.compile(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])")

_UNIT_NAMES = {
    "degree": "degrees deg", "mm": "millimeter millimeters millimetre millimetres",
    "cm": "centimeter centimeters centimetre centimetres", "m": "meter meters metre metres",
    "km": "kilometer kilometers kilometre kilometres", "in": "inch inches", "ft": "foot feet", "yd": "yard yards",
    "mi": "mile miles", "g": "gram grams", "kg": "kilogram kilograms", "lb": "lbs pound pounds",
    "s": "sec second seconds", "min": "minute minutes", "h": "hr hrs hour hours", "day": "days", "week": "weeks",
    "month": "months", "year": "years", "l": "liter liters litre litres", "ml": "milliliter milliliters",
    "dollar": "dollars", "cent": "cents", "": "unit units",
}  # fmt: skip
_UNITS = {name: unit for unit, names in _UNIT_NAMES.items() for name in (unit, *names.split()) if name}
# A unit of one letter needs a space before it: "5 m" is a length, "5m" may be a product.
_UNIT = re.compile(
    r"^(?P<value>.*[\d}).])(?:\s*(?:(?P<power>square|sq\.?|cubic|cu\.?)\s+)?(?P<long>"
    + "|".join(sorted((name for name in _UNITS if len(name) > 1), key=len, reverse=True))
    + r")|\s+(?P<short>[a-z]))(?:\^?\{?(?P<exponent>[23])\}?)?$",
    re.IGNORECASE,
)
_WORDS = re.compile(r"(?=(?:.*[A-Za-z]){4})[A-Za-z][A-Za-z' -]*|yes|no", re.IGNORECASE)

_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_SMALL_NUMBERS = {word: str(value) for value, word in enumerate(_NUMBER_WORDS.split())}

_SIGNED = r"(?P<sign>[-+]?)"
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_NUMBERS = [
    re.compile(_SIGNED + pattern)
    for pattern in [
        rf"(?P<decimal>{_DIGITS}(?:\.\d*)?|\.\d+)(?:(?:\\times|\\cdot|\*|x)\s*10\^\{{?(?P<exponent>[-+]?\d{{1,3}})\}}?)?",
        r"(?:(?P<whole>\d+)\s+)?(?P<over>\d+)/(?P<under>\d+)",
        r"(?P<whole>\d+)?\\frac\{(?P<sign2>-?)(?P<over>\d+)\}\{(?P<under>\d+)\}",
    ]
]

Decide = Callable[[str, str], bool | None]


def strip_markup(answer: str) -> str:
    r"""An answer without delimiters, font macros and spacing: ``$\text{A}$`` becomes ``A``."""
    text = answer.translate(_UNICODE).strip()
    for opening, closing in _WRAPPERS:
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing):
            text = text[len(opening) : -len(closing)].strip()
    for _ in range(_MAX_NESTING):  # innermost first: \textbf{\text{A}}
        text, removed = _TEXT_MACRO.subn(r"\1", text)
        if not removed:
            break
    return text.strip()


def normalize(answer: str) -> str:
    """One canonical spelling of an element: markup, sizes, spaces, an ``x =`` in front and a final dot removed."""
    text = strip_markup(answer)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = text.replace("$", "").strip()
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1]
    text = _ASSIGNMENT.sub("", text.strip())
    return _LOOSE_SPACE.sub("", " ".join(text.split()))


def parse_number(text: str) -> Fraction | None:
    r"""The exact value of a written number: ``1,234``, ``12.50``, ``-3/4``, ``1 1/2``, ``\frac12``, ``3\times10^4``."""
    if len(text) > _MAX_NUMBER_CHARS:
        return None
    for pattern in _NUMBERS:
        match = pattern.fullmatch(text)
        if match is None:
            continue
        found = match.groupdict()
        if found.get("decimal"):
            exponent = int(found["exponent"] or 0)
            if abs(exponent) > _MAX_EXPONENT:
                return None
            value = Fraction(found["decimal"].replace(",", "").rstrip(".")) * Fraction(10) ** exponent
        elif int(found["under"]) == 0:
            return None
        else:
            value = Fraction(int(found["over"]), int(found["under"]))
            value = int(found["whole"] or 0) + (-value if found.get("sign2") else value)
        return -value if found["sign"] == "-" else value
    return None


def split_unit(text: str) -> tuple[str, str]:
    """A normalised answer's value and its unit's symbol ("" when it has none)."""
    match = _UNIT.match(text)
    if match is None:
        return text, ""
    name = (match["long"] or match["short"]).lower()
    if name not in _UNITS:
        return text, ""
    power = match["exponent"] or {"s": "2", "c": "3"}.get((match["power"] or " ")[0].lower(), "")
    return match["value"].strip(), _UNITS[name] + power


def split_elements(answer: str) -> tuple[str, list[str]]:
    """Brackets and elements of a tuple or list; of anything else ``("", [answer])``.

    Examples:
        >>> split_elements("(1, 2)")
        ('()', ['1', '2'])
        >>> split_elements("1,234")
        ('', ['1,234'])
    """
    text = strip_markup(answer)
    text = re.sub(r"\\(?:left|right)(?=[\[\]()|.])", "", text).strip()
    if parse_number(split_unit(normalize(text).rstrip("%"))[0]) is not None:
        return "", [text]
    brackets = ""
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and _closes_at(text) == len(text) - 1:
        brackets, inner = text[0] + text[-1], text[1:-1]
    else:
        inner = text
    elements = _split_top_level(inner)
    return (brackets, elements) if len(elements) > 1 else ("", [text])


def _closes_at(text: str) -> int:
    depth = 0
    for index, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return index
    return -1


def _split_top_level(text: str) -> list[str]:
    elements, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0 and text[index - 1 : index] != "\\":
            elements.append(text[start:index])
            start = index + 1
    return [element.strip() for element in [*elements, text[start:]]]


def _numbers_equal(answer: str, gold: str) -> bool | None:
    first, second = parse_number(answer.rstrip("% ")), parse_number(gold.rstrip("% "))
    if first is None or second is None:
        return None
    if first == second:
        return True
    # "50%" may be meant as 50 (the question asks for a percentage) or as 0.5.
    if answer.endswith("%") and not gold.endswith("%"):
        return first / 100 == second
    if gold.endswith("%") and not answer.endswith("%"):
        return first == second / 100
    return False


def _elements_equal(answer: str, gold: str, decide: Decide) -> bool | None:
    first, second = normalize(answer), normalize(gold)
    if not first or not second:
        return False
    # LaTeX commands are case-sensitive (\Delta, \delta); plain words and letters are not.
    if first == second or ("\\" not in first + second and first.lower() == second.lower()):
        return True
    (first, first_unit), (second, second_unit) = split_unit(first), split_unit(second)
    if first_unit and second_unit and first_unit != second_unit:
        return False
    if first == second:
        return True
    verdict = _numbers_equal(first, second)
    if verdict is not None:
        return verdict
    if _WORDS.fullmatch(first) or _WORDS.fullmatch(second):
        return False
    return decide(first, second)


def answers_equal(answer: str, gold: str, decide: Decide) -> bool | None:
    """Whether two answers are the same; ``decide`` is asked about pairs that strings and numbers leave open.

    Returns:
        None when ``decide`` left a pair open and no other pair differs.
    """
    if max(len(answer), len(gold)) > MAX_ANSWER_CHARS:
        return answer.strip() != "" and answer.strip() == gold.strip()
    brackets, elements = split_elements(answer)
    gold_brackets, gold_elements = split_elements(gold)
    if len(elements) != len(gold_elements) or brackets != gold_brackets:
        return False
    undecided = False
    for pair in zip(elements, gold_elements, strict=True):
        verdict = _elements_equal(*pair, decide)
        if verdict is False:
            return False
        undecided = undecided or verdict is None
    return None if undecided else True


def quick_equal(answer: str, gold: str) -> bool | None:
    """Equality by strings and exact numbers alone; None when that does not decide it."""
    return answers_equal(answer, gold, lambda _answer, _gold: None)


def texts_equal(answer: str, gold: str) -> bool:
    """Equality of words: case, markup, spacing and a final dot do not count, and "four" is 4.

    >>> texts_equal("Red.", "red"), texts_equal("4", "four"), texts_equal("reddish", "red")
    (True, True, False)
    """
    first, second = (
        _SMALL_NUMBERS.get(text, text) for text in (normalize(answer).casefold(), normalize(gold).casefold())
    )
    return first != "" and first == second
