r"""Bad habits of captions, as far as their text shows them: answering, saying nothing, going round in circles.

A caption that ends in an answer is not wrong by itself: a question asks for something in the image, so a good caption
often holds the value. What is counted here is a *final statement*: ``\boxed{...}`` or "the answer is ...".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from racro_pl.text.answers import boxed_answer
from racro_pl.text.verdict import is_right
from racro_pl.types import AnswerType, Question

MAX_STATEMENTS = 20
"""Statements of one caption that are looked at; the last ones count."""
_STATEMENT = re.compile(
    r"\b(?:answer|option|choice|solution)\s{0,9}(?:is|are|would be|must be|[:=])\s{0,9}(?P<said>[^\n]{1,200})",
    re.IGNORECASE,
)
_END = re.compile(r"[.;!?](?:\s|$)")
_WORD = re.compile(r"[A-Za-z0-9_]+|[^\sA-Za-z0-9_]")
MAX_WORDS = 4000
LONGEST_PHRASE = 40
"""Words of the longest phrase whose repetition is looked for."""
REPEATS = 4
LOOP_WORDS = 12
"""A loop is a phrase said at least ``REPEATS`` times in a row that fills at least this many words."""


def stated_answers(caption: str) -> Iterator[str]:
    r"""What a caption states as its answer: the content of its last box, and what follows "the answer is".

    >>> list(stated_answers("A triangle. The answer is 5 cm. It is red."))
    ['5 cm']
    """
    boxed, _ = boxed_answer(caption)
    if boxed:
        yield boxed
    for match in list(_STATEMENT.finditer(caption))[-MAX_STATEMENTS:]:
        said = _END.split(match["said"], maxsplit=1)[0].strip().rstrip(".")
        if said:
            yield said


def states_answer(caption: str) -> bool:
    """Whether a caption states an answer at all, right or wrong."""
    return next(stated_answers(caption), None) is not None


def states_gold(caption: str, gold: str, answer_type: AnswerType, choices: Sequence[str] = ()) -> bool:
    """Whether a caption states the gold answer, as strings and exact numbers tell; no algebra.

    >>> states_gold("It is red. The answer is (B).", "B", "choice"), states_gold("Side a is 5.", "5", "math")
    (True, False)
    """
    question = Question("", (), "", gold, answer_type, tuple(choices))
    return any(is_right(said, question, lambda _answer, _gold: None) is True for said in stated_answers(caption))


def goes_round(caption: str) -> bool:
    """Whether a caption says one phrase over and over: ``REPEATS`` times in a row, ``LOOP_WORDS`` words in all.

    >>> goes_round("a red square. " * 4), goes_round("a red square, a blue square, a green square, a pink square")
    (True, False)
    """
    words = _WORD.findall(caption[: 20 * MAX_WORDS])[:MAX_WORDS]
    for period in range(1, min(LONGEST_PHRASE, len(words) // REPEATS) + 1):
        needed = max((REPEATS - 1) * period, LOOP_WORDS - period)
        run = 0
        for word, before in zip(words[period:], words, strict=False):
            run = run + 1 if word == before else 0
            if run >= needed:
                return True
    return False
