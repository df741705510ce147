"""Equality of answers that are words."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from racro_pl.text.latex import MAX_ANSWER_CHARS, normalize, squeezed
from racro_pl.text.numbers import number_of_words, parse_number

_HYPHEN = re.compile(r"(?<=\S)-|-(?!\w|\.\d)")
"""Between words, or a dash; not the sign of "-5"."""
_ARTICLE = re.compile(r"^(?:an?|the|there (?:is|are))\s+|[\"']")


def texts_equal(answer: str, gold: str) -> bool:
    """Equality of words: case, markup, articles, spacing and a final dot do not count, and "four" is 4.

    >>> texts_equal("Red.", "red"), texts_equal("4", "four"), texts_equal("reddish", "red")
    (True, True, False)
    """
    first, second = _plain_words(answer), _plain_words(gold)
    if not first or not second:
        return False
    if second in ("yes", "no", "true", "false"):
        first = re.split(r"[,.;]|\bit\b", first, maxsplit=1)[0].strip()
    return (
        first == second
        or (number_of_words(first) is not None or number_of_words(second) is not None)
        and (_counted(first) == _counted(second))
    )


def _counted(text: str) -> Fraction | None:
    number = parse_number(text)
    return number_of_words(text) if number is None else number


@lru_cache(maxsize=5_000)
def _plain_words(text: str) -> str:
    if len(text) > MAX_ANSWER_CHARS:
        return text.strip().casefold()
    plain = _HYPHEN.sub(" ", normalize(text).casefold())
    return squeezed(" ".join(_ARTICLE.sub("", plain).split()))
