"""Find the final answer in a reasoner's text. Pure string work; whether it is right is graded elsewhere."""

from __future__ import annotations

import json
import re

from racro_pl.text.latex import restore_backslashes

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
# A backslash swallows the next character, so that \{ and \} (and \\ before a brace) do not count as braces.
# Of two backslashes before a box one is an escape too many.
_TOKEN = re.compile(r"(?P<boxed>\\\\?boxed\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_WHOLE_BOX = re.compile(r"[\s$]*\\boxed\s*\{")
# A \boxed in a careless string: Python reads \b as a backspace, other writers lose the backslash alone.
_LOST_BACKSLASH = re.compile(r"(?:\x08|(?<![\\A-Za-z])b)oxed(?=\s{0,9}\{)")
_FIRST_BOX = re.compile(rf"\\\\?boxed|{_LOST_BACKSLASH.pattern}|<\|begin_of_box\|>")
_BOX_TOKENS = re.compile(r"<\|begin_of_box\|>((?:(?!<\|begin_of_box\|>).){0,2000}?)<\|end_of_box\|>", re.DOTALL)
# What stands between boxes that are one list: "$\boxed{1}$ and $x = \boxed{2}$".
_BETWEEN = re.compile(
    r"[\s$]{0,9}(?:(?:,|;|\\text\s?\{\s?(?:and|or)\s?\}|\band\b|\bor\b|和|或|\\q?quad|[\s$]){1,9})"
    r"(?:[A-Za-z](?:_\{?\w\}?)?\s?=)?[\s$]{0,9}"
)
_JOINS = re.compile(r",|;|and|or|和|或")
_MAX_JOINED = 32
_TAG = re.compile(r"<answer>((?:(?!<answer>).){0,4000}?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_FRAME = re.compile(r"\\(?:fbox|framebox)\s*\{((?:[^{}]|\{[^{}]{0,200}\}){1,500})\}")
_JSON = re.compile(r"\{[^{}]{1,2000}\}")
_JSON_KEYS = ("final_answer", "answer", "final answer", "result")


def visible_text(text: str) -> str:
    """What a reasoning model says after its thoughts: the text after the last ``</think>``.

    A thought that was opened and never closed (cut by the length limit) has no answer after it: empty.
    """
    _, closed, rest = text.rpartition(THINK_CLOSE)
    if THINK_OPEN in rest:
        return rest.split(THINK_OPEN, 1)[0]
    return rest if closed else text


def last_boxed(text: str) -> str | None:
    r"""Content of the last balanced ``\boxed{...}``, stripped; of nested boxes, the innermost.

    A box that never closes (a text cut by the length limit) is passed over in favour of the last one that does.
    One pass over the text, whatever its braces.

    Returns:
        None when there is no balanced box; an empty string when it is empty.

    Examples:
        >>> last_boxed(r"\boxed{1}, no: \boxed{\frac{1}{2}}")
        '\\frac{1}{2}'
    """
    spans = _boxes(text)
    return None if not spans else text[spans[-1][0] : spans[-1][1]].strip()


def _boxes(text: str) -> list[tuple[int, int]]:
    """Where the contents of the balanced boxes start and end, in order; of nested boxes, the innermost alone."""
    if "boxed" not in text:
        return []
    open_boxes: list[int | None] = []  # where each open brace's box content starts; None for a brace of another kind
    found: list[tuple[int, int]] = []
    for token in _TOKEN.finditer(text):
        if token["boxed"]:
            open_boxes.append(token.end())
        elif token["open"]:
            open_boxes.append(None)
        elif token["close"] and open_boxes:
            start = open_boxes.pop()
            # Boxes close inside out: one that starts before the last one found holds it.
            if start is not None and (not found or start > found[-1][0]):
                found.append((start, token.start()))
    return found


def boxed_answer(text: str) -> tuple[str | None, int]:
    r"""What a text's last box holds, and where the box ends (0 without one).

    Boxes that a comma, "and" or "or" joins are one list: ``\boxed{1}`` and ``\boxed{2}`` is ``1, 2``. GLM's box tokens
    are boxes, and so is a box that has lost its backslash.
    """
    if text.count("oxed") > text.count("\\boxed"):
        text = _LOST_BACKSLASH.sub(r"\\boxed", text)
    spans = _boxes(text)
    tokens = [match.span(1) for match in _BOX_TOKENS.finditer(text)] if "<|begin_of_box|>" in text else []
    if tokens and (not spans or tokens[-1][1] > spans[-1][1] + len("<|end_of_box|>")):
        inner = text[slice(*tokens[-1])].strip()
        return inner or None, tokens[-1][1]
    if not spans:
        return None, 0
    joined = [spans[-1]]
    for span in reversed(spans[-_MAX_JOINED:-1]):
        between = text[span[1] + 1 : joined[0][0]]
        between = between[: between.rfind("\\boxed")]
        if len(between) > 60 or not _JOINS.search(between) or not _BETWEEN.fullmatch(between):
            break
        joined.insert(0, span)
    parts = list(dict.fromkeys(text[start:end].strip() for start, end in joined))
    return ", ".join(part for part in parts if part) or None, spans[-1][1]


def before_box(text: str) -> str:
    r"""What stands before a text's first box, in any form that :func:`boxed_answer` reads; all of it without one.

    >>> before_box(r"Two and two. \boxed{4}")
    'Two and two. '
    """
    box = _FIRST_BOX.search(text)
    return text[: box.start()] if box else text


def extract_answer(text: str) -> str | None:
    """The reasoner's final answer: the last box of its visible text. None when there is none, or an empty one."""
    return boxed_answer(visible_text(text))[0]


def tagged_answer(text: str) -> str | None:
    r"""What a text marks as its answer in another way than a box: ``<answer>`` tags, ``\fbox``, a JSON object with a
    key ``answer``. None when it marks none.

    >>> tagged_answer('{"answer": "B"}'), tagged_answer("<answer>12</answer>")
    ('B', '12')
    """
    tags = _TAG.findall(text) if "<answer>" in text.lower() else []
    if tags:
        inner = tags[-1].strip()
        return tagged_answer(inner) or inner or None
    if "box" in text and (frames := _FRAME.findall(text)):
        return str(frames[-1]).strip() or None
    return _json_answer(text)


def _json_answer(text: str) -> str | None:
    bare = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    if len(bare) > 4000 or not bare.endswith("}"):
        return None
    found = _JSON.findall(bare) if bare[:1] != "{" else [bare]
    try:
        row = json.loads(found[-1], strict=False) if found else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    value = next((row[key] for key in _JSON_KEYS if key in row), None)
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def unbox(answer: str) -> str:
    r"""A gold answer without the ``\boxed{}`` around it (data sets differ); other answers come back stripped."""
    answer = restore_backslashes(answer)  # before white space goes, which a form feed is
    inner = last_boxed(answer) if _WHOLE_BOX.match(answer) else None
    return answer.strip() if inner is None else inner
