"""Read what a written answer is, by its form alone: see ``values`` for the kinds."""

from __future__ import annotations

import re
from functools import lru_cache

from racro_pl.text.latex import MAX_ANSWER_CHARS, closing, normalize, squeezed
from racro_pl.text.numbers import number_of_words, parse_number
from racro_pl.text.units import compound, parse_unit, split_unit
from racro_pl.text.values import Clock, Collection, Equation, Formula, Interval, Ratio, Value, Words

_RATIO_OF_NAMES = r"\\frac\s*\{[A-Z]{1,3}\}\s*\{[A-Z]{1,3}\}|[A-Z]\w*(?:_\{?\w+\}?)?\s*[:/]\s*[A-Z]\w*(?:_\{?\w+\}?)?"
_NAME = re.compile(
    r"(?:\\(?:angle|triangle|overline|overrightarrow|vec|bar|hat|widehat|measuredangle|Delta|odot)\s*)*"
    r"\{?\s*(?:m\s*\\angle\s*)?\\?[A-Za-z]+'*(?:\s*_\s*(?:\{[^{}=]*\}|\\?\w+))?\s*\}?"
    r"(?:(?:\s*\^\s*\{?-1\}?)?\s*\([A-Za-z0-9,\\ ]*\))?"
    r"|\?|\|[A-Za-z]{1,3}\||(?!(?:sin|cos|tan|log|ln|exp|sqrt)\b)[A-Za-z][A-Za-z' ]{3,60}(?:\([A-Za-z]+\))?"
    r"|\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])+\s*\)|" + _RATIO_OF_NAMES
)
_RELATION = re.compile(r"(\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\ne(?![A-Za-z])|<|>)")
_EQUALS = re.compile(r"(?<![<>!=:])=+(?!=)|\\approx(?![A-Za-z])|\\equiv(?![A-Za-z])")
_SEPARATOR = re.compile(
    r"\s+(?:or|and|或|和)\s+|(?<=[\d)}])\s*[或和]\s*|\s*;\s*|\s*&\s*|\\(?:lor|land|vee|wedge)(?![A-Za-z])"
)
_RATIO = re.compile(r"[^:,=<>]{1,40}(?:\s*:\s*[^:,=<>]{1,40}){1,3}")
_TO = re.compile(r"(\d+(?:\.\d+)?)\s+to\s+(\d+(?:\.\d+)?)")
_CLOCK = re.compile(r"(\d{1,2}):([0-5]\d)(?::00)?\s*(?:(a|p)\.?\s?m\.?|o'clock|hours?)?", re.IGNORECASE)
_HOUR = re.compile(r"(\d{1,2})\s*(?:(a|p)\.?\s?m\.?|o'clock)", re.IGNORECASE)
_PERCENT = re.compile(r"(.*?)\s*(?:%|percent(?:age)?(?: points?)?|pct\.?)", re.IGNORECASE | re.DOTALL)
_WORDS = re.compile(r"[^\W\d_][^\d\\+*/^=<>{}|]*|[\"'][^\\]*", re.DOTALL)
_LONG_WORD = re.compile(
    r"(?<![A-Za-z\\])[A-Za-z]{4,}|(?<![A-Za-z\\{_])(?!sin|cos|tan|log|exp|sec|csc|cot)[A-Za-z]{3}(?![A-Za-z])\s"
)
_MATRIX = re.compile(r"\\begin\{([a-zA-Z]*matrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL)
_SIGN_PAIR = re.compile(r"\\(?:pm|mp)(?![A-Za-z])\s*")
_SET_BUILDER = re.compile(r"\\\{\s*\\?[A-Za-z]\w?\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?[|:]\s*(.*)\\\}", re.DOTALL)
_NAMED_VALUES = {"infinity": r"\infty", "positive infinity": r"\infty", "negative infinity": r"-\infty",
                 "empty set": r"\emptyset", "the empty set": r"\emptyset", "null set": r"\emptyset"}  # fmt: skip
_ALL_REALS = {r"\mathbb{r}", r"\mathbb r", r"\reals", "all real numbers", "all reals"}
_IN = re.compile(r"^\s*\\?[A-Za-z]\w?\s*\\in(?![A-Za-z])\s*")
MAX_ITEMS = 64
"""A list of more is compared as it is written."""


def read_value(answer: str) -> Value:
    """What a written answer is. Words when it is nothing else, or too long for an answer."""
    return _read(normalize(answer)) if len(answer) <= MAX_ANSWER_CHARS else Words(answer.strip())


@lru_cache(maxsize=20_000)
def _read(text: str, depth: int = 0) -> Value:
    if depth > 6 or not text:
        return Words(text)
    number = parse_number(text)
    if number is not None:
        return Formula(text, number)
    if "," in text and (grouped := _grouped(text)) is not None:
        return grouped
    if (number := number_of_words(text) if "half" in text or "hundred" in text else None) is not None:
        return Formula(text, number)
    if text[:1].isdigit() and (quantity := compound(text)) is not None:
        return Formula(str(quantity[0]), *quantity)
    if match := _CLOCK.fullmatch(text):
        return _clock(match[1], match[2], match[3])
    if match := _HOUR.fullmatch(text):
        return _clock(match[1], "00", match[2])
    readers = (_matrix, _union, _bracketed, _several, _related, _equation, _ratio)
    for reader in readers:
        found = reader(text, depth)
        if found is not None:
            return found
    return _single(text)


def _grouped(text: str) -> Value | None:
    """``1,234 cm`` and ``1,234%``: the comma groups digits, and there is no list."""
    percent = _PERCENT.fullmatch(text)
    value, unit = (percent[1], None) if percent else split_unit(text)
    number = parse_number(value)
    return None if number is None else Formula(squeezed(value), number, unit, percent is not None)


def _clock(hours: str, minutes: str, half: str | None) -> Value:
    return Clock(60 * int(hours) + int(minutes), f"{half.lower()}m" if half else "")


# ------------------------------------------------------------------ several values


def _matrix(text: str, depth: int) -> Value | None:
    match = _MATRIX.fullmatch(text.strip("()[] "))
    if match is None:
        return None
    rows = [row for row in re.split(r"\\\\|\\cr(?![A-Za-z])", match[2]) if row.strip()]
    cells = [tuple(_read(normalize(cell), depth + 1) for cell in row.split("&")) for row in rows]
    return Collection("matrix", tuple(Collection("[]", row) for row in cells))


def _union(text: str, depth: int) -> Value | None:
    parts = re.split(r"\\cup(?![A-Za-z])|(?<=[)\]])\s*(?:U|∪|or|and)\s*(?=[(\[])", _IN.sub("", text))
    if len(parts) < 2:
        return None
    return Collection("cup", tuple(_read(part.strip(), depth + 1) for part in parts))


def _bracketed(text: str, depth: int) -> Value | None:
    bare = _IN.sub("", text)
    if match := _SET_BUILDER.fullmatch(bare):
        return _read(match[1].strip(), depth + 1)
    if bare.startswith(r"\{") and bare.endswith(r"\}") and bare.find(r"\}") == len(bare) - 2:
        items = _items(bare[2:-2])
        if len(items) == 1:
            return _read(items[0], depth + 1)
        return Collection("{}", tuple(_read(item, depth + 1) for item in items))
    if bare[:1] not in ("(", "[") or bare[-1:] not in (")", "]") or closing(bare) != len(bare) - 1:
        return None
    items = _items(bare[1:-1])
    kind = bare[0] + bare[-1]
    if len(items) < 2:
        return None if kind in ("(]", "[)") or bare != text else _one_in_brackets(bare, kind, depth)
    if kind in ("(]", "[)") or (len(items) == 2 and any("infty" in item for item in items)) or bare != text:
        return Interval(squeezed(items[0]), squeezed(items[1]), kind) if len(items) == 2 else None
    return Collection(kind, tuple(_read(item, depth + 1) for item in items))


def _one_in_brackets(text: str, kind: str, depth: int) -> Value | None:
    inner = text[1:-1].strip()
    if kind == "()" and (parse_number(inner) is not None or _related(inner, depth) is not None):
        return _read(inner, depth + 1)
    return None


def _several(text: str, depth: int) -> Value | None:
    groups = [group.strip() for group in text.split(";") if group.strip()]
    if len(groups) > 1 and all("," in group for group in groups) and "(" not in text:
        return Collection("list", tuple(_read(group, depth + 1) for group in groups))
    items = _items(text)
    if len(items) > 1:
        return Collection("list", tuple(_read(item, depth + 1) for item in items))
    if _SIGN_PAIR.search(text) and len(_SIGN_PAIR.findall(text)) == 1:
        signs = [_SIGN_PAIR.sub(sign, text) for sign in "+-"]
        return Collection("list", tuple(_read(sign.lstrip("+ "), depth + 1) for sign in signs))
    return None


@lru_cache(maxsize=5_000)
def _items(text: str) -> tuple[str, ...]:
    """The parts between top-level commas, semicolons, "and" and "or"; one part for a text without them."""
    if "," not in text and not _SEPARATOR.search(text):
        return (text.strip(),)
    parts = _SEPARATOR.split(text)
    balanced = all(part.count(a) == part.count(b) for part in parts for a, b in ("()", "[]", "{}"))
    pieces: list[str] = []
    for part in parts if balanced else [text]:
        depth, start = 0, 0
        for index, char in enumerate(part):
            depth += (char in "([{") - (char in ")]}")
            if char == "," and depth == 0:
                pieces.append(part[start:index])
                start = index + 1
        pieces.append(part[start:])
    trimmed = [re.sub(r"^(?:and|or)\s+", "", piece.strip()) for piece in pieces]
    items = tuple(piece for piece in trimmed if piece)
    return items if len(items) <= MAX_ITEMS else (text.strip(),)


# ------------------------------------------------------------------ relations


def _related(text: str, depth: int) -> Value | None:
    """``0 < x \\le 1`` as the interval it describes; ``x \\ne 3`` as words."""
    parts = [part.strip() for part in _RELATION.split(text)]
    if len(parts) > 2 and len(_top_level(_RELATION, text)) * 2 != len(parts) + 1:
        return None
    if len(parts) < 3 or not all(parts):
        return None
    signs, sides = parts[1::2], parts[::2]
    if len(signs) == 1 and signs[0] != r"\ne":
        left, right = sides
        if not _is_variable(left):
            left, right, signs = right, left, [_flipped(signs[0])]
        if not _is_variable(left):
            return Words(squeezed(text))
        if signs[0] in ("<", r"\le"):
            return Interval(r"-\infty", squeezed(right), "(" + (")" if signs[0] == "<" else "]"))
        return Interval(squeezed(right), r"\infty", ("(" if signs[0] == ">" else "[") + ")")
    if len(signs) == 2 and _is_variable(sides[1]) and len({sign in ("<", r"\le") for sign in signs}) == 1:
        if signs[0] in (">", r"\ge"):
            sides, signs = sides[::-1], [_flipped(sign) for sign in signs[::-1]]
        brackets = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
        return Interval(squeezed(sides[0]), squeezed(sides[2]), brackets)
    return Words(squeezed(text))


def _is_variable(text: str) -> bool:
    return re.fullmatch(r"(?:[A-Za-z]|\\[A-Za-z]{2,7})(?:_\{?\w\}?)?(?:\([a-z]\))?", text) is not None


def _flipped(sign: str) -> str:
    return {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}.get(sign, sign)


def _equation(text: str, depth: int) -> Value | None:
    sides = [side.strip() for side in _top_level(_EQUALS, text)]
    if len(sides) < 2 or not all(sides):
        return None
    value = _read(sides[-1], depth + 1)
    if _NAME.fullmatch(sides[0]):
        return Equation(sides[0], sides[-1], squeezed(sides[0]), value)
    return Equation(sides[0], sides[-1], "", None)


def _top_level(pattern: re.Pattern[str], text: str) -> list[str]:
    """A text split where a pattern stands outside braces: not at the ``=`` of ``\\sum_{k=1}``."""
    sides, start, place, depth = [], 0, 0, 0
    for match in pattern.finditer(text):
        depth += text.count("{", place, match.start()) - text.count("}", place, match.start())
        place = match.end()
        if depth == 0:
            sides.append(text[start : match.start()])
            start = match.end()
    return [*sides, text[start:]]


def _ratio(text: str, depth: int) -> Value | None:
    if match := _TO.fullmatch(text):
        return Ratio((match[1], match[2]))
    if not _RATIO.fullmatch(text) or _LONG_WORD.search(text):
        return None
    return Ratio(tuple(squeezed(term.strip()) for term in text.split(":")))


# ------------------------------------------------------------------ one value


def _single(text: str) -> Value:
    if text.lower() in _ALL_REALS:
        return Interval(r"-\infty", r"\infty", "()")
    if text.lower() in _NAMED_VALUES:
        return Formula(_NAMED_VALUES[text.lower()], None)
    words = number_of_words(text)
    if words is not None:
        return Formula(text, words)
    if match := _PERCENT.fullmatch(text):
        number = parse_number(match[1]) if parse_number(match[1]) is not None else number_of_words(match[1])
        if number is not None or not _LONG_WORD.search(match[1]):
            return Formula(squeezed(match[1]), number, percent=True)
    value, unit = split_unit(text)
    if unit is not None:
        money = value.lstrip("€£¥ ")
        number = parse_number(money)
        if number is None:
            number = number_of_words(money)
        if number is not None or not _LONG_WORD.search(value):
            return Formula(squeezed(money), number, unit)
    bare = text.lstrip("€£¥ ")
    if bare != text and parse_number(bare) is not None:
        return Formula(bare, parse_number(bare), parse_unit(text[0]))
    lead, _, noun = text.partition(" ")
    if noun and (number := number_of_words(lead)) is not None and re.fullmatch(r"[a-z]+(?: [a-z]+){0,2}", noun):
        return Formula(lead, number) if split_unit(f"1 {noun}")[1] is not None else Words(text)
    if text.lower() in ("yes", "no", "odd", "all"):
        return Words(text)
    if _WORDS.fullmatch(text) and (_LONG_WORD.search(text + " ") or len(text) > 3 and text.isalpha()):
        return Words(text)
    if re.search(r"[\u4e00-\u9fff]", text):
        return Words(text)
    return Formula(squeezed(text), None)
