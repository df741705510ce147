"""What ranks tell each other, the identity in a single process. gloo and nccl alike."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerState, TrainerStatus
from torch import Tensor

Item = TypeVar("Item")
LEAVING_S = 60.0
"""How long a rank that failed waits for the others to leave NCCL's group with it."""

_together = threading.Event()


def disconnect_at_exit(trainer: Trainer) -> None:
    """Leave the process group before the interpreter ends: gloo's threads may still be at work then, and abort it.

    NCCL's group is left by all ranks together. A rank that failed alone would wait for the others, and they for it in
    their next collective, until the group's timeout (half an hour). It ends by itself after :data:`LEAVING_S`, and with
    it those that Lightning launched from it; a launcher of its own ends the others.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    leaving = threading.Event()
    atexit.register(_disconnect, leaving)
    if dist.get_backend() == "nccl":
        # Now: no thread can be started when the interpreter ends. Without the trainer, which holds the model.
        watched = (leaving, trainer.state, trainer.strategy.launcher)
        threading.Thread(target=_end_alone, args=watched, daemon=True, name="leaving").start()


def leave_together() -> None:
    """All ranks agreed to stop: each waits for the others to leave, however long they take."""
    _together.set()


def _disconnect(leaving: threading.Event) -> None:
    if dist.is_initialized():
        leaving.set()
        dist.destroy_process_group()


def _end_alone(leaving: threading.Event, state: TrainerState, launcher: Any) -> None:
    leaving.wait()
    if state.status != TrainerStatus.INTERRUPTED or _together.is_set():
        return
    time.sleep(LEAVING_S)
    print("this rank failed, and the others did not end with it: it ends alone", file=sys.stderr, flush=True)
    for process in getattr(launcher, "procs", ()):
        process.send_signal(signal.SIGKILL)
    os._exit(1)


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
