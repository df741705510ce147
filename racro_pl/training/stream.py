"""How a step's groups go through the policy: in the order of the questions, as they come.

Rewards arrive in any order; they are awaited in the order of the questions all the same. Sums of gradients then do
not depend on the network, and a run that is resumed goes on bit for bit. What that order costs is in
``docs/performance.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from racro_pl.reward.rewarder import Pending
from racro_pl.types import Rollout

PendingGroup = tuple[Rollout, Pending]


@dataclass(frozen=True)
class MicroBatch:
    """Groups that go through the policy together."""

    groups: list[PendingGroup]
    part: int
    """Which of the step's updates they belong to."""


def micro_batches(groups: Iterator[PendingGroup], count: int, parts: int, size: int) -> Iterator[MicroBatch]:
    """Cut a step's groups, while they come, into parts (one update each) and these into micro-batches.

    Args:
        groups: in the order of the questions.
        count: how many are expected. Fewer may come; the last parts then have fewer, or none.
        parts: updates in the step.
        size: most groups in a micro-batch.
    """
    for part, length in enumerate(part_lengths(count, parts)):
        for start in range(0, length, size):
            batch = list(islice(groups, min(size, length - start)))
            if batch:
                yield MicroBatch(batch, part)


def part_lengths(count: int, parts: int) -> list[int]:
    """``parts`` lengths that differ by at most one and add up to ``count``; some may be 0.

    Examples:
        >>> part_lengths(7, 3)
        [3, 2, 2]
    """
    size, extra = divmod(count, parts)
    return [size + (index < extra) for index in range(parts)]
