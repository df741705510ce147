r"""A text without a box, taken apart: what it states as its answer, its last sentence, and whether it declines.

Only the end of a text is looked at, so that time is bounded whatever the text.
"""

from __future__ import annotations

import re
from functools import lru_cache

TAIL_CHARS = 4_000
"""The end of a text in which an answer is looked for."""
SHORT_CHARS = 120
"""A line up to this long may be an answer as a whole."""

# Emphasis, maths delimiters and text macros say nothing about what the answer is.
_MACRO = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|boxed)\s*\{([^{}]*)\}")
_MARKUP = re.compile(r"\*\*|__|`|\\?\$|\\[()\[\]]|\\boxed\s*\{|\\(?:bf|rm|it)\b|\\!|#{2,}")
_SPACES = re.compile(r"\\[,;: ]|~")
_STATEMENT = re.compile(
    r"(?:\b(?:answer|ans|correct (?:option|choice|one))\b|答案)(?P<between>[^.\n:=]{0,60}?)"
    r"(?:(?<=\s)(?:is|are|be)\b|[:：=是为]|(?<=ans)\.|(?<=answer)\s+[-–—]\s|(?<=answer)\s+(?=[(\[]?[A-H][)\].]?\s*$))\s*:?\s*"
    r"|\bI(?:['’]ll| will| would)? (?:choose|pick|select|go with)\s+(?=(?:option\s|choice\s|answer\s)?\s*\(?[A-H]\b)",
    re.IGNORECASE | re.MULTILINE,
)
# What follows takes an answer back.
_CORRECTED = re.compile(r"(?:[.!?\n]\s{0,3})(?:(?:wait|oops|actually|correction|hmm)\b|no,)", re.IGNORECASE)
NEGATED = re.compile(r"\b(?:not|cannot|no|isn't)\b", re.IGNORECASE)
_STATEMENT_END = re.compile(r"\n|。|\.(?=\s|$|[A-Z])|[!?](?=\s|$)|;(?=\s+[A-Za-z]{2}|$)")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=。)|\n+|(?<=[a-z)\]}]\.)(?=[A-Z])")
# Politeness after an answer.
_CLOSER = re.compile(
    r"(?:^|(?<=[.!?\n\s]))(?:I hope|Hope|(?:Please )?[Ll]et me know|Feel free|If you (?:have|need)|Thanks?\b"
    r"|Good luck|希望|如果你|如有)[^.!?\n。！]{0,200}[.!?。！]*\s*\Z"
)
_BLANK = r"[\s.,;:!?*_'\"()\[\]$—–#…-]*"
_NON_ANSWER = re.compile(
    rf"{_BLANK}(?:n/?a|none|null|nan|unknown|undetermined|indeterminate|not (?:available|applicable|given|provided|sure"
    rf"|specified|enough information)|no answer|unanswerable|unclear|idk|put in)?{_BLANK}"
    r"|.*\b(?:(?:can ?not|can't|can’t|could not|couldn't) (?:be )?(?:accurately |precisely |definitively )?"
    r"(?:determined?|answer(?:ed)?|identif(?:y|ied)|provide|calculate|solve|tell|see)|unable to|not possible to"
    r"|impossible to (?:determine|tell|say|answer)|(?:insufficient|not enough|need more) (?:information|data|context)"
    r"|don't (?:know|have)|do not (?:know|have)|not (?:provided|given|visible|specified) in|i'm sorry|i am sorry)\b.*",
    re.IGNORECASE | re.DOTALL,
)


def is_non_answer(text: str) -> bool:
    """Whether a text declines to answer, or says nothing: ``N/A``, ``None``, "cannot be determined", empty."""
    return _NON_ANSWER.fullmatch(unmarked(text[:1_000])) is not None


@lru_cache(maxsize=256)
def end_of(text: str) -> str:
    """The end of a text without markup and closing politeness: what the readers of final answers look at."""
    plain = unmarked(text[-TAIL_CHARS:]).strip()
    for _ in range(4):
        shorter = _CLOSER.sub("", plain).rstrip()
        if shorter == plain or not shorter:
            break
        plain = shorter
    return plain


def unmarked(text: str) -> str:
    """A text without emphasis, maths delimiters and text macros."""
    return _MARKUP.sub("", _SPACES.sub(" ", _MACRO.sub(r"\1", text.replace("\u200b", ""))))


def statements(plain: str) -> list[str]:
    """What follows each "the answer is", the last one first, but for those that are taken back."""
    corrected = max((match.end() for match in _CORRECTED.finditer(plain)), default=0)
    return [
        plain[match.end() :]
        for match in reversed(list(_STATEMENT.finditer(plain, corrected)))
        if not NEGATED.search(match["between"] or "")
    ]


def clause(statement: str) -> str:
    """A statement up to the end of its sentence."""
    end = _STATEMENT_END.search(statement)
    return statement[: end.start()] if end else statement


def last_sentence(plain: str) -> str:
    """The last sentence of a text; empty when it has none."""
    sentences = [part for part in _SENTENCE_END.split(plain) if part.strip()]
    return sentences[-1].strip() if sentences else ""
