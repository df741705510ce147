"""Is a text a description of an image, or a solution? A rule of words, and the question for a model to judge.

What is asked is what the caption penalty of RAPID asks, ``hasCap``: whether the text *contains* a description. One
that describes and then solves has a caption; one that only reasons or answers has none. The paper's own few-shot
prompt is not published; this one, and the rule, are ours.
"""

from __future__ import annotations

import re

from racro_pl.text.answers import visible_text
from racro_pl.text.reasoner_prompt import reasoner_question
from racro_pl.types import Messages

MIN_SHARE = 0.3
"""Least share of a text's words that stand in describing sentences."""
MIN_WORDS = 4
"""Least number of such words: a bare answer is none."""

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+|;\s+|(?<=\s)\.(?=\s|$)")
_WORD = re.compile(r"[A-Za-z0-9']+")
_SOLVING = re.compile(
    r"\\boxed|\banswer\b|\boption [A-H]\b|\bchoose\b"
    r"|\b(?:therefore|thus|hence|consequently|because|implies|conclude|conclusion|follows that|which means|must be)\b"
    r"|\b(?:solve|solving|calculat\w*|comput\w*|substitut\w*|simplif\w*|deriv\w*|determin\w*|multiply\w*|divid\w*"
    r"|subtract\w*|add up|adding|plug\w*|theorem|formula|step \d+|step by step)\b"
    r"|\b(?:we|let us|let's|i) (?:can|need|have to|must|get|find|know|know that|use|obtain|see that|first|then|will)\b"
    r"|^(?:so|then|now|first|next|since|given that|using|let|finally|by)\b"
    r"|=[^=]*=|\\(?:frac|sqrt|times|cdot|implies|Rightarrow)|[⇒→×÷]",
    re.IGNORECASE,
)
_SHOWING = re.compile(
    r"\b(?:image|picture|photo\w*|figure|diagram|drawing|illustration|chart|graph|plot|table|map|screenshot|scene"
    r"|shows?|showing|shown|depict\w*|display\w*|illustrat\w*|label\w*|marked|drawn|titled|represent\w*|features?"
    r"|contains?|visible|appears?|there (?:is|are)|consists? of|located|placed|positioned|arranged|background"
    r"|foreground|left|right|top|bottom|upper|lower|above|below|beside|between|inside|outside|center|centre|corner"
    r"|middle|next to|side|axis|axes|rows?|columns?|bars?|line|lines|point|points|vertex|vertices|angle|arrow\w*|dotted"
    r"|dashed|shaded|circle|square|triangle|rectangle|cube|cylinder|cross|red|green|blue|yellow|purple|orange|black"
    r"|white|gr[ae]y|brown|pink|solid|hollow|filled|dark|light|wearing|holding|standing|sitting)\b",
    re.IGNORECASE,
)

_EXAMPLES = (
    (
        "What is the area of triangle ABC?",
        "The figure shows a triangle ABC with a right angle at B. Side AB is labeled 6 and side BC is labeled 8.",
        True,
    ),
    ("What is the area of triangle ABC?", "The area is half of 6 times 8, which is 24. So the answer is 24.", False),
    (
        "In which year were sales highest?",
        "A bar chart with the years 2018 to 2021 on the x-axis; the bars reach 12, 15, 9 and 20. Sales peak in 2021.",
        True,
    ),
    ("Which animal is the predator?", "Predators eat other animals. Foxes eat rabbits, so it must be the fox.", False),
)


def describes(text: str) -> bool:
    """The rule: whether enough of a text stands in sentences that speak of what is seen and do not reason.

    A sentence counts as describing when it has a word of seeing (shapes, colours, places, "shows", "labeled") and no
    word of solving ("therefore", "we get", "the answer", a box, a chain of equations).

    Examples:
        >>> describes("The image shows two circles. The left one is labeled A.")
        True
        >>> describes("We get 3 + 4 = 7, so the answer is 7.")
        False
    """
    describing = total = 0
    for sentence in _SENTENCE.split(text):
        words = len(_WORD.findall(sentence))
        total += words
        if _SHOWING.search(sentence) and not _SOLVING.search(sentence.strip()):
            describing += words
    return describing >= MIN_WORDS and describing >= MIN_SHARE * total


def judge_messages(question_text: str, caption: str) -> Messages:
    """The chat that asks a model whether a text describes an image; ``Yes`` or ``No``, after four examples."""
    shots = "\n\n".join(_case(question, text) + (" Yes" if verdict else " No") for question, text, verdict in _EXAMPLES)
    content = (
        "A text was written about an image that you cannot see, beside a question about that image. Decide whether the "
        "text describes what the image shows. It does when somebody who cannot see the image learns from it what is "
        "there, even if the text goes on to an answer. It does not when it only reasons, calculates or answers.\n\n"
        f"{shots}\n\n{_case(reasoner_question(question_text), caption.strip())}"
    )
    return [
        {"role": "system", "content": "You are a careful judge. Reply with one word, Yes or No."},
        {"role": "user", "content": content},
    ]


def read_verdict(reply: str) -> bool | None:
    """The last ``yes`` or ``no`` of a model's reply after its thoughts; None when it says neither.

    Examples:
        >>> read_verdict("It lists the sides, so: Yes."), read_verdict("hard to tell")
        (True, None)
    """
    found = re.findall(r"\b(yes|no)\b", visible_text(reply), re.IGNORECASE)
    return None if not found else found[-1].lower() == "yes"


def _case(question: str, text: str) -> str:
    return f"Question: {question}\nText: {text}\nDoes the text describe the image?"
