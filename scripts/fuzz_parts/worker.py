"""One process that feeds one target until it is told to stop, and notes what it meets."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import random
import resource
import sys
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz_parts.mutation import mutate
from fuzz_parts.targets import TARGETS, Feed, refusals

OWN = Path(__file__).parents[2] / "racro_pl"
KEPT = 5
"""Inputs kept of one and the same crash."""


@dataclass
class Tally:
    """What a target's workers have met so far."""

    inputs: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    largest_mib: float = 0.0
    """Memory by which one input raised the process."""
    crashes: dict[str, int] = field(default_factory=dict)
    """By what was raised and where."""
    messages: dict[str, str] = field(default_factory=dict)
    """One for each of them."""

    def add(self, other: Tally) -> None:
        """Count another process's tally in."""
        self.inputs += other.inputs
        self.refused += other.refused
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.largest_mib = max(self.largest_mib, other.largest_mib)
        for what, count in other.crashes.items():
            self.crash(what, other.messages[what], count)

    def crash(self, what: str, message: str, count: int = 1) -> int:
        """Count a crash; how often this one has been met."""
        self.crashes[what] = self.crashes.get(what, 0) + count
        self.messages.setdefault(what, message)
        return self.crashes[what]


class Peak:
    """The most memory that the process held since :meth:`reset` (Linux)."""

    def __init__(self) -> None:
        self.start = self.read()

    def read(self, name: str = "VmRSS") -> float:
        """A line of /proc/self/status in MiB."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def reset(self) -> None:
        """Forget the peak."""
        Path("/proc/self/clear_refs").write_text("5")
        self.start = self.read()

    def risen(self) -> float:
        """MiB above where the process stood at the reset."""
        return self.read("VmHWM") - self.start


def work(
    name: str,
    seed: int,
    folder: Path,
    limit_mib: int,
    begun: Any,
    tallies: multiprocessing.SimpleQueue[Any],
    seconds: float,
) -> None:
    """Feed one target for so many seconds, counted from when it is loaded.

    Args:
        name: of the target.
        seed: of all chance.
        folder: for the input's files; the input under way is always ``current`` in it.
        limit_mib: memory that the process may take beyond what it holds at the start.
        begun: shared clock: when the input under way was begun, 0 while there is none.
        tallies: where tallies go, one a second.
        seconds: how long.
    """
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    target, draw, tally, peak = TARGETS[name], random.Random(seed), Tally(), Peak()
    seeds = target.seeds()
    feed = target.feed(folder)
    feed(seeds[0])  # all is loaded now, and the limit is on top of that
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + limit_mib * 2**20,) * 2)
    told = time.monotonic()
    stop = told + seconds
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process's life
    while time.monotonic() < stop:
        data = mutate(draw.choice(seeds), draw, seeds)
        (folder / "current").write_bytes(data)
        peak.reset()
        begun.value = time.monotonic()
        outcome, message = try_one(feed, data)
        taken = time.monotonic() - begun.value
        begun.value = 0.0
        tally.inputs += 1
        tally.slowest_s, tally.largest_mib = max(tally.slowest_s, taken), max(tally.largest_mib, peak.risen())
        if outcome == "refused":
            tally.refused += 1
        elif outcome:
            keep(folder, name, outcome, tally.crash(outcome, message))
        if time.monotonic() - told > 1:
            tallies.put(tally)
            tally, told = Tally(), time.monotonic()
    tallies.put(tally)


def try_one(feed: Feed, data: bytes) -> tuple[str, str]:
    """Empty where the input was taken, ``refused``, or what was raised and where; and its message."""
    try:
        feed(data)
    except refusals():
        return "refused", ""
    except Exception as error:  # whatever it is: that is the question
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).is_relative_to(OWN)]
        place = f"{Path(own[-1].filename).relative_to(OWN.parent)}:{own[-1].lineno}" if own else "outside"
        return f"{type(error).__name__} at {place}", " ".join(str(error).split())[:80]
    return "", ""


def keep(folder: Path, name: str, what: str, number: int) -> None:
    """Save the input under way beside the workers' folders."""
    if number <= KEPT:
        label = "".join(letter if letter.isalnum() else "-" for letter in what)
        with contextlib.suppress(OSError):
            (folder.parent / f"{name}_{label}_{number}").write_bytes((folder / "current").read_bytes())
