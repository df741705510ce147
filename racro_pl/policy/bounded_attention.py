"""Attention with gradient that never holds the scores of all queries against all keys.

Fused kernels never do. But not every card has one for every call: flash attention wants a 16-bit dtype and an Ampere
card, and the kernel for the others takes no query heads that share keys, and no bfloat16 before Ampere. PyTorch then
computes score by score without a word: heads x queries x keys of them, and keeps them for the backward pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.utils.checkpoint import checkpoint

CHUNK_SCORES = 2**25
"""Scores that exist at one time where no fused kernel takes the call: 128 MiB in float32."""


def bounded_attention(
    q: Float[Tensor, "r h q d"],
    k: Float[Tensor, "r g k d"],
    v: Float[Tensor, "r g k d"],
    scaling: float,
    mask: Float[Tensor, "#r 1 q k"] | None = None,
) -> Float[Tensor, "r h q d"]:
    """Scaled dot-product attention; causal where there is no ``mask``.

    Where no fused kernel takes the call: by one with the shared keys repeated, else some queries at a time, computed
    again in the backward pass.

    Args:
        q, k, v: queries, and keys and values of as many heads or of a divisor of them.
        mask: added to the scores.
    """
    size = max(1, CHUNK_SCORES // (q.shape[0] * q.shape[1] * k.shape[2]))
    if q.shape[2] <= size or _is_fused(q, k, v, scaling, mask):
        return _attend(q, k, v, scaling, mask)
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    if _is_fused(q, k, v, scaling, mask):
        return _attend(q, k, v, scaling, mask)
    parts = []
    for start in range(0, q.shape[2], size):
        rows = q[:, :, start : start + size]
        if mask is None:
            end = start + rows.shape[2]
            seen = torch.ones(rows.shape[2], end, dtype=torch.bool, device=q.device).tril(start)
        else:
            end, seen = k.shape[2], mask[:, :, start : start + size]
        own = (rows, k[:, :, :end], v[:, :, :end], scaling, seen)
        parts.append(checkpoint(_attend, *own, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(parts, dim=2)


def _attend(q: Tensor, k: Tensor, v: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
    shared = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=shared
    )


def _is_fused(q: Tensor, k: Tensor, v: Tensor, scaling: float, mask: Tensor | None) -> bool:
    """Whether PyTorch would take a kernel that keeps scores to itself: what it asks itself, too."""
    shared = q.shape[1] != k.shape[1]
    choice = torch._fused_sdp_choice(q, k, v, mask, 0.0, mask is None, scale=scaling, enable_gqa=shared)
    return choice != SDPBackend.MATH.value
