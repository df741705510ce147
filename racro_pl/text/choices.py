r"""Options of a choice question: written into its text, and read back out of an answer.

An answer names an option by its letter, or by its text or value. It names one or none: ``A and B``, ``not A`` and
``all except A`` are no choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache

from racro_pl.text.algebra import value_of
from racro_pl.text.comparison import Decide, answers_equal, quick_equal
from racro_pl.text.latex import MAX_ANSWER_CHARS, strip_markup
from racro_pl.text.read_value import read_value
from racro_pl.text.values import Equation, Formula, Ratio, Value

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LEAD = (
    r"(?:(?:(?:so|thus|hence|therefore),?\s+)?(?:(?:the\s+)?(?:final\s+|correct\s+|right\s+)*"
    r"(?:answer|option|choice|letter|figure|diagram|picture|image|shape|ans|result)s?"
    r"(?:\s+(?:is|would be))?\s*[:：]?\s*){1,3}"
    r"|(?:\[答案\])?(?:(?![不非除])[\u4e00-\u9fff，,]){0,12}[:：]?\s*)?"
)
_OPENING, _CLOSING = r"[(\[{\"'<]?\s*", r"\s*[)\]}\"'>]?"
_LETTER_ALONE = re.compile(
    rf"{_LEAD}{_OPENING}([A-Za-z]){_CLOSING}\s*[.:,;!]?(?:\s*(?:选?项|正确)){{0,2}}", re.IGNORECASE
)
_LETTER_FIRST = re.compile(
    rf"{_LEAD}(?:[(\[{{]\s*([A-Za-z])\s*[)\]}}]\s*[.:,-]*|([A-Za-z])\s*(?:[.:)\]]|,(?=\s*[^\sA-Za-z])|(?=\s?\()|\s-\s"
    r"|(?=\s(?:because|since|is (?:the )?(?:correct|right|best|answer))\b)))"
    r"\s*(?P<rest>\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_NAMED_THING = re.compile(r"(?:[A-Za-z]+\s+){1,3}\(?([A-Z])\)?\s*[.!]?")
_LETTER_SPACE = re.compile(rf"{_LEAD}([A-Z])\s+(?P<rest>\S.*)", re.DOTALL)
_SET_OFF = re.compile(r"(?<![A-Za-z\\'’])([A-Z])(?![A-Za-z'’])")
_REJECTED = re.compile(
    r"\b(?:not|\w+n['’]t|cannot|but|rule out|ruled out|eliminat\w+|nor|neither|none|except|excluding|other than"
    r"|unless|if|otherwise|wrong|incorrect|rather than"
    r"|instead of)\b"
    r"|\\(?:neg|lnot|not)(?![A-Za-z])|\?|[不非除]|错误",
    re.IGNORECASE,
)
_SCRIPT = re.compile(r"\\math(?:cal|bb|scr|frak)\s*\{?([A-Z])\}?")
_NUMBERED = re.compile(r"([A-Za-z][A-Za-z .#-]*?)\s*(\d+)")


def with_choices(text: str, choices: Sequence[str]) -> str:
    """A question's text with its options after it, one ``A. ...`` a line.

    Unchanged when there are no options, when every option already stands in the text after its letter, and when
    the options are nothing but their letters (they are then drawn in the image).
    """
    options = list(zip(LETTERS, (choice.strip() for choice in choices), strict=False))
    if all(choice in ("", letter) for letter, choice in options):
        return text
    if all(re.search(rf"\b{letter}\s*[.:)\]]\s*{re.escape(choice)}", text) for letter, choice in options):
        return text
    return text.rstrip() + _listed(choices)


def without_choices(text: str, choices: Sequence[str]) -> str | None:
    """The text without the options that :func:`with_choices` wrote after it; None where they stand in another way."""
    bare = text.removesuffix(_listed(choices))
    return None if with_choices(bare, choices) == bare else bare


def _listed(choices: Sequence[str]) -> str:
    return "\nOptions:\n" + "\n".join(
        f"{letter}. {choice.strip()}" for letter, choice in zip(LETTERS, choices, strict=False)
    )


def choice_letter(answer: str, choices: Sequence[str] = (), decide: Decide | None = None) -> str | None:
    r"""The option an answer names, upper case: ``(A)``, ``A.``, ``A: text``, ``A (text)``, ``\text{A}``, ``a``, or an
    option's text or value.

    A letter counts only when it stands alone or is set off by a bracket, dot, colon or comma ("A triangle" names
    none), only when there is such an option, and only when no other letter stands beside it.

    Args:
        answer: without its box.
        choices: the options' texts; empty when they are unknown.
        decide: a symbolic comparison, for options that are formulas.

    Returns:
        None when the answer names no option or several.
    """
    if len(answer) > MAX_ANSWER_CHARS:
        return None
    plain = _SCRIPT.sub(r"\1", strip_markup(answer)).strip()
    known = LETTERS[: len(choices)] if choices else LETTERS
    primed = plain.endswith("'") and not plain.startswith("'")
    if not primed and (match := _LETTER_ALONE.fullmatch(plain)):
        letter = match[1].upper()
        if letter in known:
            return letter
    exact = _named(lambda choice: quick_equal(plain, choice) is True, choices)
    if len(exact) == 1:
        return exact[0]
    if _REJECTED.search(plain):
        return _lettered_text(plain, choices)
    if letter := _lettered(plain, choices, known):
        return letter
    return _by_value(plain, choices, decide) if choices and not exact else None


def _lettered(plain: str, choices: Sequence[str], known: str) -> str | None:
    """The letter of ``B. text`` and ``B (text)``."""
    match = _LETTER_FIRST.fullmatch(plain)
    if match is None:
        thing = _NAMED_THING.fullmatch(plain)  # "Kite C"
        if thing and thing[1] in known[:8] and len(_SET_OFF.findall(plain)) == 1:
            return thing[1]
        return _lettered_text(plain, choices)
    letter = (match[1] or match[2]).upper()
    rest = match["rest"].strip("() .")
    others = set(_SET_OFF.findall(match["rest"])) & set(known[:8]) - {letter}
    if letter not in known or (match[2] and match[2].islower() and not choices):
        return None
    if not choices or choices[LETTERS.index(letter)] in ("", letter):
        return None if others else letter
    text = choices[LETTERS.index(letter)]
    if not others or (rest and quick_equal(rest, text) is True):
        return letter
    return letter if others <= set(_SET_OFF.findall(text)) else None


def _lettered_text(plain: str, choices: Sequence[str]) -> str | None:
    """The letter of ``D 4`` and ``D. None of these``, when that is what option D says."""
    match = _LETTER_FIRST.fullmatch(plain) or _LETTER_SPACE.fullmatch(plain)
    if match is None:
        return None
    letter = next(group for group in match.groups() if group).upper()
    if letter not in LETTERS[: len(choices)]:
        return None
    text, rest = choices[LETTERS.index(letter)], match["rest"].strip()
    same = quick_equal(rest, text) is True or quick_equal(rest.strip("() "), text) is True
    return letter if same else None


# ------------------------------------------------------------------ options by what they say


def _named(matches: Callable[[str], bool], choices: Sequence[str]) -> list[str]:
    return [letter for letter, choice in zip(LETTERS, choices, strict=False) if choice and matches(choice)]


def _by_value(plain: str, choices: Sequence[str], decide: Decide | None) -> str | None:
    """The one option with an answer's value: ``0.25`` names ``1:4``, and ``3.46`` names ``2\\sqrt{3}``, of which it
    is the rounding, when no other option comes as near. ``5`` names ``Basket 5`` among other baskets."""
    may_be_formula = any(char in plain for char in "\\^=+*/(|")
    if decide is not None and may_be_formula:
        found = _named(lambda choice: answers_equal(plain, choice, decide) is True, choices)
        if found:
            return found[0] if len(found) == 1 else None
    numbered = [_NUMBERED.fullmatch(choice.strip()) for choice in choices]
    if all(numbered) and len({match[1].lower() for match in numbered if match}) == 1:
        tails = [match[2] for match in numbered if match]
        found = _named(lambda choice: quick_equal(plain, choice) is True, tails)
        return found[0] if len(found) == 1 else None
    return _by_number(read_value(plain), choices)


def _by_number(value: Value, choices: Sequence[str]) -> str | None:
    number = _number(value)
    if number is None:
        return None
    written = value.text if isinstance(value, Formula) else ""
    decimals = re.search(r"\d?\.(\d{2,6})\b", written)
    near = Fraction(1, 2 * 10 ** len(decimals[1])) if decimals else Fraction(1, 10**12) * abs(number)
    unit = value.unit if isinstance(value, Formula) else None
    numbers = [_option_number(choice) for choice in choices]
    found = [
        letter
        for letter, (option, theirs) in zip(LETTERS, numbers, strict=False)
        if option is not None
        and abs(option - number) <= near
        and not (unit and theirs and unit.dimension and theirs.dimension and unit != theirs)
    ]
    return found[0] if len(found) == 1 else None


@lru_cache(maxsize=5_000)
def _option_number(choice: str):  # type: ignore[no-untyped-def]
    value = read_value(choice)
    return _number(value), value.unit if isinstance(value, Formula) else None


def real_numbers(answer: str) -> tuple[Fraction, ...]:
    """The numbers that an answer may stand for: none, one, or of a percentage two, as it stands and over a hundred.

    Units and currency signs are left out, formulas are evaluated.
    """
    value = read_value(answer) if len(answer) <= MAX_ANSWER_CHARS else None
    number = None if value is None else _number(value)
    if number is None:
        return ()
    return (number, number / 100) if isinstance(value, Formula) and value.percent else (number,)


def _number(value: Value) -> Fraction | None:
    """The real number that a value stands for; formulas are evaluated."""
    if isinstance(value, Equation):
        return None if value.value is None else _number(value.value)
    if isinstance(value, Ratio) and len(value.terms) == 2:
        text = f"({value.terms[0]})/({value.terms[1]})"
    elif isinstance(value, Formula):
        if value.number is not None:
            return value.number
        text = value.text
    else:
        return None
    found = value_of(text)
    if isinstance(value, Ratio) and isinstance(found, Fraction) and found.denominator == 1:
        return None  # "2:1" is not 2
    if found is None or isinstance(found, Fraction):
        return found
    try:
        as_float = float(found)
        return Fraction(as_float) if abs(as_float) < 1e300 else None
    except (TypeError, ValueError, OverflowError):
        return None
