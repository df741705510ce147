"""Find the final answer in a reasoner's text. Pure string work; whether it is right is graded elsewhere."""

from __future__ import annotations

import re

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
# A backslash swallows the next character, so that \{ and \} (and \\ before a brace) do not count as braces.
_TOKEN = re.compile(r"(?P<boxed>\\boxed\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_WHOLE_BOX = re.compile(r"\s*\$*\s*\\boxed\s*\{")


def visible_text(text: str) -> str:
    """What a reasoning model says after its thoughts: the text behind the last ``</think>``.

    A thought that was opened and never closed (cut by the length limit) has no answer behind it: empty.
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
    open_boxes: list[int | None] = []  # where each open brace's box content starts; None for a brace of another kind
    best: tuple[int, int] | None = None
    for token in _TOKEN.finditer(text):
        if token["boxed"]:
            open_boxes.append(token.end())
        elif token["open"]:
            open_boxes.append(None)
        elif token["close"] and open_boxes:
            start = open_boxes.pop()
            if start is not None and (best is None or start > best[0]):
                best = (start, token.start())
    return None if best is None else text[best[0] : best[1]].strip()


def extract_answer(text: str) -> str | None:
    """The reasoner's final answer: the last box of its visible text. None when there is none, or an empty one."""
    return last_boxed(visible_text(text)) or None


def unbox(answer: str) -> str:
    r"""A gold answer without the ``\boxed{}`` around it (data sets differ); other answers come back stripped."""
    inner = last_boxed(answer) if _WHOLE_BOX.match(answer) else None
    return answer.strip() if inner is None else inner
