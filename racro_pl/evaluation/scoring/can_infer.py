"""VLMEvalKit's matcher ``can_infer``, re-implemented as its current version behaves: which option does a text name?

Its quirks are kept, since numbers that are comparable with the paper's depend on them: "the answer is between" names
option B, and an option's text counts wherever it stands in a short enough answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

REFUSED = "Z"
"""What it gives for a refusal: no option, and settled."""
_API_FAILURE = "Failed to obtain answer via API"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST_TOKENS = 4
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)


def can_infer(answer: str, choices: Mapping[str, str]) -> str | None:
    r"""The option that an answer names.

    Args:
        answer: a model's text.
        choices: letter to text of every option, in order.

    Returns:
        A letter of ``choices``, ``"Z"`` for a refusal, or None when it cannot tell.

    Examples:
        >>> can_infer(r"The final answer is \boxed{B}", {"A": "1", "B": "2"})
        'B'
    """
    return _by_letter(answer, choices) or _by_text(answer, choices)


def _by_letter(answer: str, choices: Mapping[str, str]) -> str | None:
    if _API_FAILURE in answer:
        return None
    if any(refusal in answer for refusal in _REFUSALS):
        return REFUSED
    tokens = answer.translate(_PUNCTUATION).split()
    present = [letter for letter in choices if letter in tokens]
    # Only where the letter's first mention is near the end: "A triangle has area 12. So 12 cm" names no option.
    if len(present) == 1 and tokens.index(present[0]) >= len(tokens) - _LAST_TOKENS:
        return present[0]
    if not present and REFUSED in tokens:
        return REFUSED
    match = _ANSWER_IS.search(answer)
    return match[1].upper() if match and match[1].upper() in choices else None


def _by_text(answer: str, choices: Mapping[str, str]) -> str | None:
    if len(answer) > 2 * sum(len(text) for text in choices.values()):
        return None
    named = [letter for letter, text in choices.items() if text.lower() in answer.lower()]
    return named[0] if len(named) == 1 else None
