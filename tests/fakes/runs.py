"""What two runs left behind, side by side: bit for bit where it is of the method, not where it is of the clock."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

CLOCK = ("seconds", "speed/", "memory/")


def captions(folder: Path, name: str = "captions.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def metrics(folder: Path) -> list[dict[str, str]]:
    """Rows without empty cells and without what a clock or the machine's memory says."""
    with (folder / "metrics.csv").open() as file:
        return [
            {name: value for name, value in row.items() if value and not any(word in name for word in CLOCK)}
            for row in csv.DictReader(file)
        ]


def state(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's leaves by their path, without names of files and what a clock says."""
    leaves: dict[str, Any] = {}

    def walk(item: Any, path: str) -> None:
        if isinstance(item, dict):
            for key, value in item.items():
                walk(value, f"{path}/{key}")
        elif isinstance(item, list | tuple):
            for index, value in enumerate(item):
                walk(value, f"{path}/{index}")
        elif isinstance(item, torch.Tensor) or not any(word in f"{path} {item}" for word in ("checkpoints", *CLOCK)):
            leaves[path.split("best_k_models")[0]] = item

    walk(torch.load(checkpoint, weights_only=True), "")
    return leaves


def assert_same_state(found: Path, expected: Path, but: Sequence[str] = ()) -> None:
    """Weights, optimizer, loops, callbacks: every tensor and number the same to the bit, ``but`` those of a name."""
    ours, theirs = (
        {name: value for name, value in state(each).items() if not name.endswith(tuple(but))}
        for each in (found, expected)
    )
    assert ours.keys() == theirs.keys()
    assert sum(isinstance(value, torch.Tensor) for value in ours.values()) > 20
    for name, value in ours.items():
        other = theirs[name]
        both_unknown = value != value and other != other if isinstance(value, float) else False
        same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
        assert same or both_unknown, f"{name}: {value} is not {other}"


ASKED = ("reasoner/requests", "reasoner/prompt_tokens", "reasoner/completion_tokens")
LOOKUPS = (*ASKED, "reasoner/cache_hit_rate")
"""Figures that depend on what is in the cache of answers; the answers do not."""


def assert_same_run(found: Path, expected: Path, *, cache_lost: bool = False) -> None:
    """Also each caption with its reward, and each figure that was logged: no gap, no repeat, no difference.

    Args:
        found, expected: folders of the runs.
        cache_lost: ``found`` lost its cache of answers on the way: it has asked the reasoner at least as often.
    """
    names = {path.name for path in expected.glob("captions*.jsonl")}
    assert names == {path.name for path in found.glob("captions*.jsonl") if "replaced" not in path.name}
    for name in names:
        assert captions(found, name) == captions(expected, name)
    ours, theirs = metrics(found), metrics(expected)
    if cache_lost:
        lookups = [[[float(row.pop(name, "0")) for name in LOOKUPS] for row in rows] for rows in (ours, theirs)]
        for (*asked, hits), (*asked_before, hits_before) in zip(*lookups, strict=True):
            assert all(now >= before for now, before in zip(asked, asked_before, strict=True))
            assert hits <= hits_before
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    pairs = enumerate(zip(ours, theirs, strict=True))
    apart = [
        (row, name, one[name], other[name]) for row, (one, other) in pairs for name in one if one[name] != other[name]
    ]
    assert not apart, apart  # row, metric, the value found and the one expected
    last = "checkpoints/last.ckpt"
    assert_same_state(found / last, expected / last, LOOKUPS if cache_lost else ())
