r"""The final answer of a text that has no ``\boxed{}``: short outputs, "the answer is ...", a last sentence.

Conservative: where a text leaves open what its answer is, there is none. Only the first line and the end of a text
are looked at, so that time is bounded whatever the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from racro_pl.text.choices import LETTERS, choice_letter

TAIL_CHARS = 4_000
"""The end of a text in which an answer is looked for."""
SHORT_CHARS = 120
"""A line up to this long may be an answer as a whole."""
MAX_WORDS = 5
"""A short line of more words is a sentence."""

# Emphasis, maths delimiters and text macros say nothing about what the answer is.
_MACRO = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|boxed)\s*\{([^{}]*)\}")
_MARKUP = re.compile(r"\*\*|__|`|\\?\$|\\[()\[\]]|\\boxed\s*\{|\\(?:bf|rm|it)\b|\\!|#{2,}")
_SPACES = re.compile(r"\\[,;: ]|~")
_STATEMENT = re.compile(
    r"(?:\b(?:answer|ans|correct (?:option|choice|one))\b|答案)(?P<between>[^.\n:=]{0,60}?)"
    r"(?:(?<=\s)(?:is|are|be)\b|[:：=是为]|(?<=answer)\s+(?=[(\[]?[A-H][)\].]?\s*$))\s*:?\s*",
    re.IGNORECASE | re.MULTILINE,
)
_NEGATED = re.compile(r"\b(?:not|cannot|no|isn't)\b", re.IGNORECASE)
_STATEMENT_END = re.compile(r"\n|。|\.(?=\s|$|[A-Z])|[!?;](?=\s|$)")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=。)|\n+|(?<=[a-z)\]}]\.)(?=[A-Z])")
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
_REJECTED = re.compile(
    r"\b(?:not|nor|neither|isn't)\s+(?:(?:option|choice)\s+)?\(?[A-H]\b|\b(?:wrong|incorrect)\b"
    r"|\b[A-H]\)?\s*(?:,|and|or|&)\s*(?:and\s+|or\s+)?\(?[A-H]\)?\s*[.!]?$"
)
_ENDS_IN_LETTER = re.compile(r"(?:^|\s)(?:\(([A-H])\)\s*[.!]?|\[([A-H])\]\s*[.!]?|([A-H])\s*[.!])$")

_CONNECTIVE = re.compile(
    r"\b(?:is|are|was|were|be|equal to|equals?|get|gives?|obtain|have|has|contains?"
    r"|replaced (?:with|by))\b|[=≈:]"
    r"|\\(?:approx|Rightarrow|implies)\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"^(?:approximately|about|around|roughly|exactly|nearly|only|simply"
    r"|thus|so|hence|therefore|(?:a )?total of|≈)\s*,?\s*",
    re.I,
)
_NUMBER = r"[-−+]?\s?(?:\\?[$€£]\s?)?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?"
_NUMBER_AND_UNIT = re.compile(
    rf"(?P<number>{_NUMBER})\s?"
    rf"(?:%|\\%|°|[A-Za-z]{{1,3}}(?:\^?[23])?)?(?P<unit>(?:[\s-]+[A-Za-z][A-Za-z²³'’^23]*){{0,6}})"
)
_WORDS_BEHIND = re.compile(r"(?<=[\d}\w])\s+[A-Za-z]{2,}[A-Za-z²³ -]{0,40}(?:\^\{?[23]\}?)?$")
_FORMULA = re.compile(r"(?=.*(?:\d|\\(?:pi|infty|sqrt)))[^&;\n]*[^&;\n,+*/^_(\[{<=-]")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_NON_ANSWER = re.compile(
    r"\W*(?:n/?a|none|null|nan|unknown|undetermined|indeterminate|not (?:available|applicable|given|provided|sure"
    r"|specified|enough information)|no answer|unanswerable|unclear|idk|put in)?\W*"
    r"|.*\b(?:(?:can ?not|can't|can’t|could not|couldn't) (?:be )?(?:accurately |precisely |definitively )?"
    r"(?:determined?|answer(?:ed)?|identif(?:y|ied)|provide|calculate|solve|tell|see)|unable to|not possible to"
    r"|impossible to (?:determine|tell|say|answer)|(?:insufficient|not enough|need more) (?:information|data|context)"
    r"|don't (?:know|have)|do not (?:know|have)|not (?:provided|given|visible|specified) in|i'm sorry|i am sorry)\b.*",
    re.IGNORECASE | re.DOTALL,
)


def is_non_answer(text: str) -> bool:
    """Whether a text declines to answer, or says nothing: ``N/A``, ``None``, "cannot be determined", empty."""
    return _NON_ANSWER.fullmatch(_unmarked(text[:1_000])) is not None


def final_letter(text: str, choices: Sequence[str] = ()) -> str | None:
    """The option that a text ends up with, upper case; ``choices`` are the options' texts where they are known.

    Tried in turn: the last "the answer is C"; the whole text or its last or first line as an answer (``(C) 80°``);
    the last sentence, when it names one option only; and an option's text where a letter could stand.
    """
    known = LETTERS[: len(choices)] if choices else LETTERS[:8]
    plain = _unmarked(text[-TAIL_CHARS:]).strip()
    for statement in _statements(plain):
        match = _STATED_LETTER.match(statement)
        letter = _matched(match) or choice_letter(_clause(statement), choices)
        if letter and letter in known:
            return letter
    lines = plain.splitlines()
    for line in (plain, *lines[-1:], *_unmarked(text[:SHORT_CHARS]).strip().splitlines()[:1]):
        letter = choice_letter(line, choices) or _letter_and_text(line, choices)
        if len(line) <= SHORT_CHARS and letter and letter in known:
            return letter
    return _last_sentence_letter(plain, choices, known)


def _letter_and_text(line: str, choices: Sequence[str]) -> str | None:
    """The letter of ``D 4``, when option D is 4."""
    letter, _, text = line.strip().partition(" ")
    return letter if letter in LETTERS[: len(choices)] and choice_letter(text, choices) == letter else None


def _last_sentence_letter(plain: str, choices: Sequence[str], known: str) -> str | None:
    sentence = _last_sentence(plain)
    if _REJECTED.search(sentence) or is_non_answer(sentence):
        return None
    named = {_matched(match) for match in _NAMED_OPTION.finditer(sentence)}
    if not named and (match := _ENDS_IN_LETTER.search(sentence)):
        named = {_matched(match)}
    if named:
        letter = named.pop()
        return letter if letter and letter in known and not named else None
    value = final_value(plain)
    return (choice_letter(value, choices) if value else None) or _named_by_text(sentence, choices)


def _named_by_text(sentence: str, choices: Sequence[str]) -> str | None:
    """The one option whose words stand in a sentence; numbers do not count, they may be about anything."""
    lowered = sentence.lower()
    found = {
        letter: choice.strip(" .").lower()
        for letter, choice in zip(LETTERS, choices, strict=False)
        if _WORD.search(choice) and re.search(rf"(?<!\w){re.escape(choice.strip(' .').lower())}(?!\w)", lowered)
    }
    # "light red" also holds "red".
    longest = [a for a, text in found.items() if not any(text != other and text in other for other in found.values())]
    return longest[0] if len(longest) == 1 else None


def final_value(text: str) -> str | None:
    """The value that a text ends up with, without units that are words; None when it is left open.

    Tried in turn: the whole text or its last line as an answer (``12 cm``); the last "the answer is 12"; the end of
    the last sentence, behind "is", "=" and the like; and a first line that is a number.
    """
    plain = _unmarked(text[-TAIL_CHARS:]).strip()
    if "\n" not in plain and len(plain) <= SHORT_CHARS and (value := _whole_line(plain)):
        return value
    lines = plain.splitlines()
    if lines and (value := _number_like(lines[-1])):
        return value
    for statement in _statements(plain):
        if value := _stated_value(statement):
            return value
    if value := _behind_verb(_last_sentence(plain)):
        return value
    first = _unmarked(text[:SHORT_CHARS]).strip().split("\n", 1)
    return first[0].strip() if len(first) > 1 and re.fullmatch(_NUMBER, first[0].strip()) else None


def final_words(text: str) -> str | None:
    """The few words behind the last "is" of the last sentence ("The color is dark red."); None when it has none."""
    sentence = _last_sentence(_unmarked(text[-TAIL_CHARS:]).strip())
    if len(sentence) > SHORT_CHARS or _NEGATED.search(sentence):
        return None
    *_, last = [0, *(match.end() for match in _CONNECTIVE.finditer(sentence))]
    value = _bare(sentence[last:])
    return value if last and 1 <= len(value.split()) <= 3 and not is_non_answer(value) else None


def _whole_line(line: str) -> str | None:
    value = _bare(line)
    words = _WORD.findall(value)
    if not value or is_non_answer(value) or (words and _CONNECTIVE.search(value)):
        return None  # of a sentence, what stands behind its verb counts
    return _number_like(value) or (value if len(words) <= MAX_WORDS else None)


def _stated_value(statement: str) -> str | None:
    value = _bare(_clause(statement))
    if not value or is_non_answer(value):
        return None
    if number := _number_like(value):
        return number
    if found := _behind_verb(value):
        return found
    return value if len(_WORD.findall(value)) <= MAX_WORDS else None


def _number_like(text: str) -> str | None:
    """A number without the words behind it, or a formula without words; None for anything else."""
    value = _bare(text)
    if len(value) > SHORT_CHARS:
        return None
    if match := _NUMBER_AND_UNIT.fullmatch(value):
        # Known units stay: "5 cm" against "50 mm" is for the comparison to decide.
        return value if len(match["unit"].split()) <= 1 else match["number"]
    formula = _WORDS_BEHIND.sub("", value)
    balanced = all(formula.count(a) == formula.count(b) for a, b in ("()", "{}"))
    return formula if balanced and not _WORD.search(formula) and _FORMULA.fullmatch(formula) else None


def _behind_verb(sentence: str) -> str | None:
    """The number behind the last "is" or "=" of a sentence; None when something else stands there."""
    *_, last = [0, *(match.end() for match in _CONNECTIVE.finditer(sentence[-300:]))]
    return _number_like(sentence[-300:][last:]) if last else None


def _statements(plain: str) -> list[str]:
    """What follows each "the answer is", the last one first."""
    return [
        plain[match.end() :]
        for match in reversed(list(_STATEMENT.finditer(plain)))
        if not _NEGATED.search(match["between"])
    ]


def _clause(statement: str) -> str:
    end = _STATEMENT_END.search(statement)
    return statement[: end.start()] if end else statement


def _last_sentence(plain: str) -> str:
    sentences = [part for part in _SENTENCE_END.split(plain) if part.strip()]
    return sentences[-1].strip() if sentences else ""


def _bare(text: str) -> str:
    value = text.strip().rstrip(".!。").strip()
    return _HEDGE.sub("", value).strip()


def _unmarked(text: str) -> str:
    return _MARKUP.sub("", _SPACES.sub(" ", _MACRO.sub(r"\1", text)))


def _matched(match: re.Match[str] | None) -> str | None:
    return None if match is None else next((group.upper() for group in match.groups() if group), None)
