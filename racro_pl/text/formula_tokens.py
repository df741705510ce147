"""The tokens of formulas, in LaTeX and in plain arithmetic."""

from __future__ import annotations

import re

MAX_TOKENS = 400
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d+)?[eE][-+]?\d{1,3}(?![A-Za-z0-9])"
    r"|\d+(?:\.(?!\.)\d*)?|\.\d+)"
    r"|\\(?P<command>[A-Za-z]+)|(?P<brace>\\[{}|])|(?P<letters>[A-Za-z]+)|(?P<sign>\*\*|.))",
    re.ASCII | re.DOTALL,
)
FUNCTIONS = frozenset(
    re.findall(r"\w+", "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp abs floor ceil sqrt")
)
_MAX_WORD = 3
"""A longer run of letters is a word, not a product."""


class NotAlgebraError(Exception):
    """The text is no formula that the grammar knows."""


def tokens(text: str) -> list[tuple[str, str]]:
    """Kinds and texts of a formula's tokens: number, command, function, letter, sign.

    Raises:
        NotAlgebraError: it holds a word, or more tokens than any answer.
    """
    found: list[tuple[str, str]] = []
    for match in _TOKEN.finditer(text.rstrip()):
        kind = match.lastgroup or ""
        value = match[kind]
        if kind == "command" and value in FUNCTIONS:
            found.append(("function", value))
        elif kind == "letters":
            found += _letters(value)
        elif kind == "brace":
            found.append(("sign", {r"\{": "(", r"\}": ")", r"\|": "|"}[f"{value}"]))
        else:
            found.append((kind, value))
    if len(found) > MAX_TOKENS:
        raise NotAlgebraError
    return found


def _letters(word: str) -> list[tuple[str, str]]:
    if word in FUNCTIONS:
        return [("function", word)]
    if word in ("pi", "infinity"):
        return [("command", word)]
    for name in ("sin", "cos", "tan", "log", "ln", "sqrt"):
        if word.startswith(name) and len(word) == len(name) + 1:  # "sinx"
            return [("function", name), ("letter", word[-1])]
    if len(word) > _MAX_WORD:
        raise NotAlgebraError
    return [("letter", letter) for letter in word]
