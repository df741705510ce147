"""Gradients that are summed while groups arrive and normalised once, just before the optimizer steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from racro_pl.training.distributed import all_reduce


@dataclass
class GradientSum:
    """The summed gradient of one of several losses, kept while another's is summed. As large as the gradients."""

    gradients: list[Tensor | None]
    """One per trained parameter."""
    divisor: float
    """As in :func:`normalise_gradients`."""
    weight: float
    """Of this loss beside the one that is summed in the parameters."""


def take_gradients(parameters: Sequence[nn.Parameter], divisor: float, weight: float) -> GradientSum:
    """Take the gradients summed so far off the parameters, so that another loss's can be summed there."""
    gradients = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    return GradientSum(gradients, divisor, weight)


def normalise_gradients(
    parameters: Sequence[nn.Parameter], divisor: float, max_norm: float, others: Sequence[GradientSum] = ()
) -> tuple[float, bool]:
    """Divide summed gradients by the divisors of all ranks together (a mean over their tokens, say), and clip.

    With several losses the result is ``sum_k weight_k * gradient_k / divisor_k``, the weight 1 for the one that was
    summed in the parameters; a loss of which nothing counted anywhere adds nothing.

    Every rank takes part in the same collectives, also one that had nothing to learn from: its gradients count as
    zeros. One flat buffer per dtype and loss is reduced. Gradients of sharded weights are summed over ranks already.

    Args:
        parameters: those being trained.
        divisor: what this rank adds to the number to divide by, see ``losses.variants.divisor``.
        max_norm: bound on the global gradient norm.
        others: the sums of the other losses, the same number on all ranks.

    Returns:
        The norm before clipping, and whether the update may be made: False when nothing counted anywhere or the
        norm is not finite (the reference skips such updates too).
    """
    divisors = [divisor, *(other.divisor for other in others)]
    total, *totals = all_reduce(torch.tensor(divisors, dtype=torch.float64)).tolist()
    if total == 0 and not any(totals):
        return 0.0, False
    _divide(parameters, total)
    for other, count in zip(others, totals, strict=True):
        if count:
            _add(parameters, other, count)
    own, shards = _split(parameters)
    norm = _global_norm(own, shards)
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradients in (own, shards):
        if gradients:  # all at once: on a card a launch for each of hundreds takes as long as the whole optimizer
            torch._foreach_mul_(gradients, scale.to(gradients[0].device))
    return float(norm), bool(torch.isfinite(norm))


def _divide(parameters: Sequence[nn.Parameter], total: float) -> None:
    """Sum every gradient over ranks and divide it; 0 where nothing counted."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    own, shards = _split(parameters)
    _reduce_flat(own)
    for gradients in (own, shards):
        if gradients:
            torch._foreach_div_(gradients, total or 1.0)


def _add(parameters: Sequence[nn.Parameter], other: GradientSum, total: float) -> None:
    """Add another loss's mean gradient, times its weight."""
    kept = take_gradients(parameters, 0.0, 0.0)
    for parameter, gradient in zip(parameters, other.gradients, strict=True):
        parameter.grad = gradient
    _divide(parameters, total)
    for parameter, gradient in zip(parameters, kept.gradients, strict=True):
        assert gradient is not None
        assert parameter.grad is not None
        parameter.grad = gradient.add_(parameter.grad, alpha=other.weight)


def _split(parameters: Sequence[nn.Parameter]) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients that every rank has, and those of which it has a part."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    own = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    return own, [gradient.to_local() for gradient in gradients if isinstance(gradient, DTensor)]


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
