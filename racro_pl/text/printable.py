"""Text of strangers on its way out: to a terminal, a log, a table, a picture, a page, a file that people look at.

Ids, categories, questions, captions and servers' messages may hold sequences that move a terminal's cursor, change its
title or its clipboard, and controls that turn the order of a line around (https://trojansource.codes). They are shown
as what they are, and do nothing.
"""

from __future__ import annotations

import json
import re
from typing import Any

_ACTIVE = (
    "\0-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # all that Unicode calls Bidi_Control
    "\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb"  # invisible; further line ends
    "\ud800-\udfff\U000e0000-\U000e007f"  # halves of characters; tags, which are invisible text
)
_ANY_LINES = re.compile(f"[{_ACTIVE}]")
_ONE_LINE = re.compile(f"[{_ACTIVE}\t\n]")
_NAMES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def printable(text: str, lines: bool = False) -> str:
    """The text with everything that is not for reading as its escape: ``\\x1b``, ``\\u202e``.

    Joiners and selectors that scripts and emoji need stay.

    Args:
        text: any text.
        lines: whether it may go over several lines; else tabs and line feeds are escaped too, so that no text can
            forge a line of its own.

    >>> printable("a\\x1b[2J\\u202eb\\n")
    'a\\\\x1b[2J\\\\u202eb\\\\n'
    """
    return (_ANY_LINES if lines else _ONE_LINE).sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in _NAMES:
        return _NAMES[match[0]]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def json_line(record: Any) -> str:
    """A value as one line of JSON that reads back as the same value and can be looked at in a terminal.

    What :func:`printable` escapes is escaped the way JSON does it, halves of characters included; other text stays
    readable.

    >>> json_line({"id": "\\x9b2J", "text": "rød"})
    '{"id": "\\\\u009b2J", "text": "rød"}'
    """
    return _ONE_LINE.sub(_json_escape, json.dumps(record, ensure_ascii=False))


def _json_escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1] if match[0] != "\x7f" else "\\u007f"
