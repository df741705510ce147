"""Gradients that are summed while groups arrive and normalised once, just before the optimizer steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from racro_pl.training.distributed import all_reduce


def normalise_gradients(parameters: Sequence[nn.Parameter], divisor: float, max_norm: float) -> tuple[float, bool]:
    """Divide summed gradients by the divisors of all ranks together (a mean over their tokens, say), and clip.

    Every rank takes part in the same collectives, also one that had nothing to learn from: its gradients count as
    zeros. One flat buffer per dtype is reduced. Gradients of sharded weights are summed over ranks already.

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
    own = [parameter.grad for parameter in parameters if not isinstance(parameter.grad, DTensor)]
    shards = [parameter.grad.to_local() for parameter in parameters if isinstance(parameter.grad, DTensor)]
    _reduce_flat(own)  # type: ignore[arg-type]
    for gradient in [*own, *shards]:
        gradient.div_(total)  # type: ignore[union-attr]
    norm = _global_norm(own, shards)  # type: ignore[arg-type]
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradient in [*own, *shards]:
        gradient.mul_(scale.to(gradient.device))  # type: ignore[union-attr]
    return float(norm), bool(torch.isfinite(norm))


def _global_norm(own: list[Tensor], shards: list[Tensor]) -> Tensor:
    """The norm of all gradients together: those that every rank has, and those of which it has a part."""
    norm = nn.utils.get_total_norm(own)
    if not shards:
        return norm
    squared = all_reduce(nn.utils.get_total_norm(shards) ** 2)
    return (squared + norm.to(squared.device) ** 2).sqrt()


def _reduce_flat(gradients: list[Tensor]) -> None:
    if not (dist.is_available() and dist.is_initialized()):
        return
    for dtype in sorted({gradient.dtype for gradient in gradients}, key=str):
        same = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = all_reduce(torch.cat([gradient.flatten() for gradient in same]))
        for gradient, piece in zip(same, flat.split([gradient.numel() for gradient in same]), strict=True):
            gradient.copy_(piece.view_as(gradient))
