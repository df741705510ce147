"""The option that a text without a box ends up with.

Conservative: where a text names several options, excludes one, or makes it depend on something, it names none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from racro_pl.text.choices import LETTERS, choice_letter
from racro_pl.text.final_value import final_value
from racro_pl.text.sentences import SHORT_CHARS, clause, end_of, is_non_answer, last_sentence, statements, unmarked

_OPTION_WORD = r"(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|letter|answer|figure|diagram|picture|image|shape)\s+)"
# A lone capital A or I may be a word: it counts at the end of a clause, or before a word that gives a reason.
_LETTER = (
    r"(?:[(\[{]\s*(?P<bracketed>[A-Ha-h])\s*[)\]}]"
    r"|(?P<plain>[B-H])(?![\w'’])(?!\s*[=+/^_{-]|\s*\\)"
    r"|(?P<article>A)(?=\s*(?:[.,:;)!?]|\n|$|\s(?:because|since|as|and|with|which|where|due)\b)))"
)
# "A, B and C" is no answer; a letter in lower case may be the article.
_ANOTHER = r"(?!\s*(?:,|and\b|or\b|&|/)\s*(?:and\s+|or\s+)?[(\[]?(?-i:[A-H])\b)"
_STATED_LETTER = re.compile(rf"{_OPTION_WORD}?{_LETTER}{_ANOTHER}", re.IGNORECASE)
_NAMED_OPTION = re.compile(
    r"(?:\b(?i:option|choice)\s+(?:is\s+)?)(?P<option>[A-H])(?![\w'’])|\(\s*(?P<bracketed>[A-H])\s*\)"
    r"|选项\s*(?P<chinese>[A-H])|(?:^|(?<=\s))(?P<praised>[A-H])\s+is\s+(?:the\s+)?(?:correct|right|best|answer)\b"
)
_ANOTHER_LETTER = re.compile(r"\(?[A-H]\)?\s*(?:,|and\b|or\b|&|/)\s*(?:and\s+|or\s+)?\(?[A-H]\b")
_REJECTED = re.compile(
    r"\b(?i:not|nor|neither|isn't|excluding|except(?: for)?|other than|but|(?:cannot|can['’]t|not) be|rules? out"
    r"|ruled out|eliminated?|none of|rather than|instead of|either)\s+"
    r"(?:(?:the|an?|option|choice|answer)\s+){0,2}\(?[A-H]\b|\b(?i:wrong|incorrect)\b"
    r"|\b[A-H]\)?\s*(?:,|and|or|&)\s*(?:and\s+|or\s+)?\(?[A-H]\)?\s*(?:[.!]?$|(?:is|are)\b)"
    r"|\b[A-H]\)?\s+(?:is|are|can|could|must|does)\s*(?:not\b|n['’]t)|\b[A-H]\)?\s+(?:isn|aren|cannot|can['’]t)"
    r"|\b[A-H]\)?\s+(?:if|unless|when|otherwise)\b"
)
_ENDS_IN_LETTER = re.compile(r"(?:^|\s)(?:\(([A-H])\)\s*[.!]?|\[([A-H])\]\s*[.!]?|([A-H])\s*[.!])$")

_NOT_BUT = re.compile(r"\bnot\s+\(?[A-H]\)?\s*,?\s*but\b")
_POSITIVE = re.compile(r"\b(?:so|thus|hence|therefore|right|correct|answer|choose|must be)\b", re.IGNORECASE)
_NOT_SO = r"(?:not|n['’]t|never|neither|nor|except|other than|but)\s+(?:\w+\s+){0,2}"
_CONDITION = re.compile(r"\b(?:if|unless|otherwise|depending|assuming|provided)\b", re.IGNORECASE)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_UNDETERMINED = re.compile(r"determin|not enough info|insufficient|no (?:real )?solution", re.IGNORECASE)
_OWN_REFUSAL = re.compile(r"\b(?:I|I'm|we|sorry|image|picture|figure|caption|provided)\b")


def final_letter(text: str, choices: Sequence[str] = ()) -> str | None:
    """The option that a text ends up with, upper case; ``choices`` are the options' texts where they are known.

    Tried in turn: the last "the answer is C"; the whole text or its last or first line as an answer (``(C) 80°``);
    the last sentence, when it names one option only; and an option's text where a letter could stand.
    """
    known = LETTERS[: len(choices)] if choices else LETTERS[:8]
    plain = end_of(text)
    for statement in statements(plain):
        statement = _NOT_BUT.sub("", statement, count=1).lstrip()
        said = clause(statement)
        if _CONDITION.search(said):
            return choice_letter(said, choices)
        match = _STATED_LETTER.match(statement)
        letter = _matched(match) or choice_letter(said, choices)
        if letter and letter in known:
            return letter
        if _ANOTHER_LETTER.match(said):
            return None
    lines = plain.splitlines()
    for line in (plain, *lines[-1:], *unmarked(text[:SHORT_CHARS]).strip().splitlines()[:1]):
        letter = choice_letter(line, choices) if len(line) <= SHORT_CHARS else None
        if letter and letter in known:
            return letter
    return _last_sentence_letter(plain, choices, known)


def _last_sentence_letter(plain: str, choices: Sequence[str], known: str) -> str | None:
    sentence = last_sentence(plain)
    if is_non_answer(sentence):
        return _undetermined(sentence, choices)
    sentence = _without_rejections(sentence)
    if _REJECTED.search(sentence):
        return None
    named = {_matched(match) for match in _NAMED_OPTION.finditer(sentence)}
    if not named and (match := _ENDS_IN_LETTER.search(sentence)):
        named = {_matched(match)}
    if named:
        letter = named.pop()
        return letter if letter and letter in known and not named else None
    value = final_value(plain)
    return (choice_letter(value, choices) if value else None) or _named_by_text(sentence, choices)


def _without_rejections(sentence: str) -> str:
    """``Not A, so C`` without what it rejects, where the rest says of something that it is the answer."""
    parts = _NOT_BUT.sub("", sentence).split(",")
    kept = ",".join(part for part in parts if not _REJECTED.search(part))
    return kept if len(parts) > 1 and _POSITIVE.search(kept) else _NOT_BUT.sub("", sentence)


def _undetermined(sentence: str, choices: Sequence[str]) -> str | None:
    """The option "cannot be determined", for a sentence that says so of the question and not of the speaker."""
    if not _UNDETERMINED.search(sentence) or _OWN_REFUSAL.search(sentence):
        return None
    same = [letter for letter, choice in zip(LETTERS, choices, strict=False) if _UNDETERMINED.search(choice)]
    return same[0] if len(same) == 1 else None


def _named_by_text(sentence: str, choices: Sequence[str]) -> str | None:
    """The one option whose words stand in a sentence; numbers do not count, they may be about anything."""
    lowered = sentence.lower()
    found = {
        letter: choice.strip(" .").lower()
        for letter, choice in zip(LETTERS, choices, strict=False)
        if _WORD.search(choice)
        and not re.search(rf"{_NOT_SO}{re.escape(choice.strip(' .').lower())}(?!\w)", lowered)
        and re.search(rf"(?<!\w){re.escape(choice.strip(' .').lower())}(?!\w)", lowered)
    }
    # "light red" also holds "red".
    longest = [a for a, text in found.items() if not any(text != other and text in other for other in found.values())]
    return longest[0] if len(longest) == 1 else None


def _matched(match: re.Match[str] | None) -> str | None:
    return None if match is None else next((group.upper() for group in match.groups() if group), None)
