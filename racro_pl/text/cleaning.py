"""Text from anywhere as text that can be stored, sent and compared: what every reader does to every string it takes."""

from __future__ import annotations

import re
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MAX_DEPTH = 100
"""Deepest nesting of a row's values: whatever walks through them may then recurse."""
_HALF = re.compile("[\ud800-\udfff]")
_NOTHING = re.compile("[\0\ufeff]")


def clean_text(text: str) -> str:
    """The text without NUL characters and byte-order marks, and with U+FFFD for every lone surrogate.

    A lone surrogate is half a character beyond U+FFFF, such as an emoji that was cut: no encoding can hold it. NUL ends
    strings elsewhere, and a byte-order mark is invisible and tells texts apart that look the same.

    >>> clean_text("\\ufeffred \\ud83d")
    'red \ufffd'
    """
    if text.isascii() and "\0" not in text:
        return text  # nearly all, and images as base64
    if _HALF.search(text):
        text = _HALF.sub(REPLACEMENT, text)
    return _NOTHING.sub("", text) if _NOTHING.search(text) else text


def clean(value: Any, depth: int = 0) -> Any:
    """A JSON value with every text in it cleaned, keys included; the very same object when nothing had to be.

    Raises:
        ValueError: lists and objects are nested more than ``MAX_DEPTH`` deep.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list | tuple):
        items = [clean(item, depth + 1) for item in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    if isinstance(value, dict):
        pairs = [(clean(key), clean(item, depth + 1)) for key, item in value.items()]
        same = all(new[0] is old[0] and new[1] is old[1] for new, old in zip(pairs, value.items(), strict=True))
        return value if same else dict(pairs)
    return value
