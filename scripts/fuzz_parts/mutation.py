"""Random changes to an input: of its bytes, of its text, and of what it says where it is JSON."""

from __future__ import annotations

import json
import random
from typing import Any

LONGEST = 200_000
"""Bytes of an input. What is refused for its length alone has its own tests."""
_NUMBERS = (0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf"))
_TEXTS = (
    "", " ", "\x00", "\ud83d", "\u202e", "\x1b[2J", "e\u0301", "٣", "x" * 5000, "{" * 2000, "[" * 2000, "\\boxed{",
    "</think>", "<image>", "../../../etc/passwd", "/dev/zero", "nan", "-inf", "1e999", "=1+1",
    "\\frac{" * 300, "^" * 500,
)  # fmt: skip
_FRAGMENTS = (
    b"\x00", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r\n", b"\t", b'"', b"{", b"}", b"[", b"]", b",", b":",
    b"\\", b"\\u0000", b"\\ud83d", b"null", b"true", b"NaN", b"Infinity", b"-1e999", b"9" * 400, b"\x80\x80\x80\x80",
    b"\x7f\xff\xff\xff", b"\\boxed{", b"\\frac{1}{", b"\\sqrt", b"</think>", b"<think>", b"$$", b"\\text{", b"^{",
    b"\xed\xa0\xbd",
)  # fmt: skip


def mutate(seed: bytes, draw: random.Random, others: list[bytes]) -> bytes:
    """An input made from ``seed``: a few changes of its bytes, or of its JSON where it is some.

    Args:
        seed: an input that is known to be good, or a fault that was found before.
        draw: the source of all chance; the same one makes the same input.
        others: further seeds, to splice with.
    """
    if draw.random() < 0.5:
        changed = _change_json(seed, draw)
        if changed is not None:
            return changed[:LONGEST]
    data = bytearray(seed)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        _change_bytes(data, draw, others)
    return bytes(data[:LONGEST])


def _change_bytes(data: bytearray, draw: random.Random, others: list[bytes]) -> None:
    place = draw.randrange(len(data) + 1)
    end = min(len(data), place + draw.choice((1, 2, 4, 16, 256)))
    kind = draw.randrange(6)
    if kind == 0 and data:
        data[place - 1] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del data[place:end]
    elif kind == 2:
        data[place:place] = draw.choice(_FRAGMENTS)
    elif kind == 3:
        data[place:end] = draw.randbytes(end - place)
    elif kind == 4:
        data[place:place] = data[place:end] * draw.choice((1, 2, 50))
    else:
        other = draw.choice(others)
        data[place:] = other[draw.randrange(len(other) + 1) :]


def _change_json(seed: bytes, draw: random.Random) -> bytes | None:
    """The lines of ``seed`` that are JSON with some of their values replaced; None where there is none."""
    lines = seed.split(b"\n")
    changed = False
    for index, line in enumerate(lines):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict | list):
            for _ in range(draw.choice((1, 1, 3))):
                value = _change_value(value, draw)
            lines[index] = json.dumps(value, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
            changed = True
    return b"\n".join(lines) if changed else None


def _change_value(value: Any, draw: random.Random) -> Any:
    """``value`` with one thing in it replaced, removed, added or moved, at a random depth."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        if draw.random() < 0.15:
            return {name: item for name, item in value.items() if name != key}
        if draw.random() < 0.1:
            return value | {draw.choice(_TEXTS): value[key]}
        return value | {key: _change_value(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.8:
        place = draw.randrange(len(value))
        kind = draw.random()
        if kind < 0.1:
            return value[:place] + value[place + 1 :]
        if kind < 0.2:
            return value + value[place:] * draw.choice((1, 20))
        return value[:place] + [_change_value(value[place], draw)] + value[place + 1 :]
    return _another(value, draw)


def _another(value: Any, draw: random.Random) -> Any:
    """Something else in the place of ``value``: of another kind, or of the same and odd."""
    kind = draw.randrange(6)
    if kind == 0:
        return draw.choice(_NUMBERS)
    if kind == 1:
        return draw.choice(_TEXTS)
    if kind == 2:
        return draw.choice((None, True, False, [], {}, [[]], {"": None}))
    if kind == 3:
        return [value] * draw.choice((1, 9, 300))
    if kind == 4:
        return {"value": value}
    return str(value) + draw.choice(_TEXTS) if not isinstance(value, dict | list) else str(value)
