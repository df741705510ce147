"""A captioner whose weights are spread over devices by FSDP2, and ranks that keep in step.

Every pass through sharded weights gathers them layer by layer, so every rank has to make the same passes. How many
it needs depends on its captions and their rewards: :func:`keep_step` lets a rank without a pass of its own make an
empty one. Vision tower (1.3 GB in bf16) and adapters are not sharded, so that nothing else needs all ranks: images
differ in number, and adapters are saved and pushed by rank 0 alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from racro_pl.policy.adapters import TRAINED
from racro_pl.policy.structure import decoder_of, vision_parameters
from racro_pl.types import RacroError


class Pass(IntEnum):
    """Kinds of passes; ranks that want different ones make the highest first."""

    NONE = 0
    FROZEN = 1
    """The policy, without gradient."""
    REFERENCE = 2
    TRAINED = 3
    """The policy, forward and backward."""


def keep_step(kind: Pass, empty_pass: Callable[[Pass], None], device: torch.device) -> None:
    """Let every rank make the same passes in the same order, whatever each of them has to compute.

    To be called by all ranks before every pass; returns when all of them make one of this kind, empty ones in between.
    With ``Pass.NONE``: when no rank has a pass left to make.

    Args:
        empty_pass: makes a dummy pass that keeps FSDP collectives matched.
    """
    while True:
        wanted = torch.tensor([int(kind)], device=device)
        dist.all_reduce(wanted, op=dist.ReduceOp.MAX)
        if int(wanted) == kind:
            return
        empty_pass(Pass(int(wanted)))


def shard(captioner: Any, device: torch.device, mesh: DeviceMesh, compute_dtype: torch.dtype | None) -> None:
    """Spread the weights of a captioner over the devices of ``mesh``, in place, and move the rest to ``device``.

    Gradients of sharded weights are summed over ranks in float32, in every backward; nothing divides them. Those of
    the other weights stay on their rank.

    Args:
        captioner: a :class:`racro_pl.policy.captioner.Captioner`, in this process's main memory: its layers move to
            the device one by one.
        mesh: all ranks, in one dimension.
        compute_dtype: sharded weights are gathered and used in it; None for the one that they are stored in.

    Raises:
        RacroError: adapters sit on stacked experts, which peft adds to whole weights.
    """
    lora = getattr(captioner.model, "peft_config", {}).get(TRAINED)
    if lora is not None and lora.target_parameters:
        raise RacroError(
            "policy.lora.experts needs whole weights on every rank; use the ddp strategy, or set it to false"
        )
    whole = {parameter for name, parameter in captioner.named_parameters() if "lora_" in name}
    for part in captioner.parts():
        whole |= set(vision_parameters(part))
    options: dict[str, Any] = {
        "mesh": mesh,
        "ignored_params": whole,
        # Also of the root: after a pass without gradient its weights would stay gathered, and an optimizer would
        # then find tensors that are not its own.
        "reshard_after_forward": True,
        "mp_policy": MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32),
    }
    for part in captioner.parts():
        for layer in decoder_of(part).layers:
            fully_shard(layer, **options)
    captioner.to(device)
    fully_shard(captioner, **options)
    for module in _shards(captioner):
        # A sum, said in the way that gloo knows too.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


@contextmanager
def gathered(captioner: nn.Module, policy: nn.Module) -> Iterator[None]:
    """While this lasts every rank holds the policy whole, and passes without gradient ask nothing of other ranks.

    To be entered by all ranks. Does nothing to a captioner that is not sharded.
    """
    modules = [*_shards(policy)]
    if isinstance(captioner, FSDPModule):
        modules.append(captioner)
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.reshard()
            module.set_reshard_after_forward(True, recurse=False)


def _shards(module: nn.Module) -> list[FSDPModule]:
    return [each for each in module.modules() if isinstance(each, FSDPModule)]
