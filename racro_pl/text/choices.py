"""Options of a choice question: written into its text, and read back out of an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from racro_pl.text.equality import quick_equal, strip_markup

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LEAD = r"(?:(?:the\s+)?(?:final\s+|correct\s+)?(?:answer|option|choice)(?:\s+is)?\s*:?\s*)?"
_LETTER_ALONE = re.compile(rf"^{_LEAD}[(\[]?\s*([A-Za-z])\s*[)\]]?\s*[.:]?$", re.IGNORECASE)
_LETTER_THEN_TEXT = re.compile(rf"^{_LEAD}(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z])\s*[.:)\]])[\s.:]*\S", re.IGNORECASE)


def with_choices(text: str, choices: Sequence[str]) -> str:
    """A question's text with its options behind it, one ``A. ...`` a line.

    Unchanged when there are no options, when every option already stands in the text behind its letter, and when
    the options are nothing but their letters (they are then drawn in the image).
    """
    options = list(zip(LETTERS, (choice.strip() for choice in choices), strict=False))
    if all(choice in ("", letter) for letter, choice in options):
        return text
    if all(re.search(rf"\b{letter}\s*[.:)\]]\s*{re.escape(choice)}", text) for letter, choice in options):
        return text
    return text.rstrip() + "\nOptions:\n" + "\n".join(f"{letter}. {choice}" for letter, choice in options)


def choice_letter(answer: str, choices: Sequence[str] = ()) -> str | None:
    """The option an answer names, upper case: ``(A)``, ``A.``, ``A: text``, ``\\text{A}``, ``a``, or an option's text.

    A letter counts only when it stands alone or is set off by a bracket, dot or colon ("A triangle" names none),
    and only when there is such an option. An answer that is exactly one option's text names that option.

    Returns:
        None when the answer names no option or several.
    """
    plain = strip_markup(answer)
    match = _LETTER_ALONE.match(plain) or _LETTER_THEN_TEXT.match(plain)
    if match:
        letter = next(group for group in match.groups() if group).upper()
        if not choices or LETTERS.index(letter) < len(choices):
            return letter
    named = [
        letter
        for letter, choice in zip(LETTERS, choices, strict=False)
        if choice and quick_equal(plain, choice) is True
    ]
    return named[0] if len(named) == 1 else None
