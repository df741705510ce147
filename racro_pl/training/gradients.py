"""Gradients that are summed while groups arrive and normalised once, just before the optimizer steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


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
    if not (dist.is_available() and dist.is_initialized()):
        return dict(stats)
    gathered: list[Mapping[str, float]] = [{}] * dist.get_world_size()
    dist.all_gather_object(gathered, dict(stats))
    result: dict[str, float] = {}
    for name in sorted({name for each in gathered for name in each}):
        values = [each[name] for each in gathered if name in each]
        result[name] = {"seconds": max(values), "cache_hit_rate": sum(values) / len(values)}.get(name, sum(values))
    return result


def normalise_gradients(parameters: Sequence[nn.Parameter], divisor: float, max_norm: float) -> tuple[float, bool]:
    """Divide summed gradients by the divisors of all ranks together (a mean over their tokens, say), and clip.

    Every rank takes part in the same collectives, also one that had nothing to learn from: its gradients count as
    zeros. One flat buffer per dtype is reduced.

    Args:
        parameters: those being trained.
        divisor: what this rank adds to the number to divide by, see ``losses.variants.divisor``.
        max_norm: bound on the global gradient norm.

    Returns:
        The norm before clipping, and whether the update may be made: False when nothing counted anywhere or the
        norm is not finite (the reference skips such updates too).
    """
    total = float(all_reduce(torch.tensor([divisor], dtype=torch.float64))[0])
    if total == 0:
        return 0.0, False
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    _reduce_flat([parameter.grad for parameter in parameters if parameter.grad is not None])
    for parameter in parameters:
        parameter.grad.div_(total)  # type: ignore[union-attr]
    norm = float(nn.utils.clip_grad_norm_(parameters, max_norm))
    return norm, bool(torch.isfinite(torch.tensor(norm)))


def _reduce_flat(gradients: list[Tensor]) -> None:
    if not (dist.is_available() and dist.is_initialized()):
        return
    for dtype in sorted({gradient.dtype for gradient in gradients}, key=str):
        same = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = all_reduce(torch.cat([gradient.flatten() for gradient in same]))
        for gradient, piece in zip(same, flat.split([gradient.numel() for gradient in same]), strict=True):
            gradient.copy_(piece.view_as(gradient))
