"""What ranks tell each other, the identity in a single process. gloo and nccl alike."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


def disconnect_at_exit() -> None:
    """Leave the process group before the interpreter ends: gloo's threads may still be at work then, and abort it."""
    if dist.is_available() and dist.is_initialized():
        atexit.register(_disconnect)


def _disconnect() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def all_reduce(tensor: Tensor, operation: str = "sum") -> Tensor:
    """Reduce over ranks ("sum" or "max"); the identity in a single process. gloo and nccl alike."""
    if not (dist.is_available() and dist.is_initialized()):
        return tensor
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else tensor.device
    moved = tensor.to(device)
    dist.all_reduce(moved, op=dist.ReduceOp.SUM if operation == "sum" else dist.ReduceOp.MAX)
    return moved.to(tensor.device)


def reduce_counts(stats: Mapping[str, float]) -> dict[str, float]:
    """What the scorers of all ranks counted, together. Ranks may have met different kinds of faults: names may differ.

    Counts are summed, ``seconds`` is the longest rank's, ``cache_hit_rate`` the mean of the ranks that have one.
    """
    gathered = join_ranks([dict(stats)])
    result: dict[str, float] = {}
    for name in sorted({name for each in gathered for name in each}):
        values = [each[name] for each in gathered if name in each]
        result[name] = {"seconds": max(values), "cache_hit_rate": sum(values) / len(values)}.get(name, sum(values))
    return result


def join_ranks(items: list[Item]) -> list[Item]:
    """The lists of all ranks, one after the other. To be called by all ranks or none."""
    if not (dist.is_available() and dist.is_initialized()):
        return items
    gathered: list[list[Item]] = [[]] * dist.get_world_size()
    dist.all_gather_object(gathered, items)
    return [item for each in gathered for item in each]
