"""Texts labelled by hand: does the text contain a description of the image (``hasCap``), or does it only solve?

The rule was written with the part "development" at hand; "held out" was written before the rule was first run, and
has not changed since.
"""

from __future__ import annotations

import json
from pathlib import Path


def labelled(part: str | None = None) -> list[dict]:
    """Rows with ``question``, ``text`` and the label ``has_caption``; of one part, or all 60."""
    lines = Path(__file__).with_name("labelled_captions.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if part in (None, row["part"])]
