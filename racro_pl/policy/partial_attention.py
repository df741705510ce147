"""Attention over a part of the keys, with the log-sum-exp that joins the parts.

Softmax over two sets of keys is the mean of the softmaxes over each, weighted by the sums of their exponentiated
scores: with outputs ``o_i`` and log-sum-exps ``l_i``, ``o = o_1 + sigmoid(l_2 - l_1) (o_2 - o_1)`` (Milakov and
Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022).

Scores are in float32 whatever the dtype of queries and keys, as in the kernels that the log-prob passes use. In
bfloat16 a score of 100 is rounded to multiples of 0.5, and large scores are the rule where keys have large biases.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Part = tuple[Tensor, Tensor]
"""Output and log-sum-exp of the same queries over some of their keys."""
ALIGNMENT = 16
"""CUDA's kernel reads the bias in rows that begin at multiples of so many elements."""


def as_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In the dtype that autocast, where it is on, gives attention: the operations below do not know of it."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)


def hiding_bias(hidden: Bool[Tensor, "r k"], dtype: torch.dtype) -> Float[Tensor, "r 1 1 k"]:
    """What is added to scores so that some keys are not seen: 0, and -inf where ``hidden``."""
    rows, keys = hidden.shape
    bias = torch.zeros(rows, 1, 1, -(-keys // ALIGNMENT) * ALIGNMENT, dtype=dtype, device=hidden.device)[..., :keys]
    return bias.masked_fill_(hidden[:, None, None], float("-inf"))


def attend(
    q: Float[Tensor, "r h q d"],
    k: Float[Tensor, "r h k d"],
    v: Float[Tensor, "r h k d"],
    scaling: float,
    bias: Float[Tensor, "r 1 1 k"] | None = None,
) -> Part:
    """Attention over these keys alone, by one fused operation on CPU and CUDA; no gradient.

    Args:
        q, k, v: in one dtype; every query sees every key.
        bias: of :func:`hiding_bias`; every query sees one key at least.

    Returns:
        The output (r, h, q, d), and the log of the sum of the exponentiated scores (r, h, q, 1) in float32.
    """
    if q.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=bias, scale=scaling)
        return out, lse[..., None]
    if q.device.type == "cuda" and has_kernel(q.dtype):
        rows = None if bias is None else bias.expand(*q.shape[:3], k.shape[2])
        out, lse = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, rows, True, scale=scaling)[:2]
        return out, lse[..., : q.shape[2], None]  # CUDA's comes in blocks of 32 queries
    return attend_explicitly(q, k, v, scaling, bias)


@cache
def has_kernel(dtype: torch.dtype) -> bool:
    """Whether CUDA's kernel that returns the log-sum-exp takes this: not AMD's, and no bfloat16 before Ampere."""
    old = dtype == torch.bfloat16 and torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0)
    return torch.version.hip is None and not old


def attend_explicitly(
    q: Float[Tensor, "r h q d"],
    k: Float[Tensor, "r h k d"],
    v: Float[Tensor, "r h k d"],
    scaling: float,
    bias: Float[Tensor, "r 1 1 k"] | None = None,
) -> Part:
    """As :func:`attend`, score by score: for devices whose fused operations keep the log-sum-exp to themselves."""
    scores = (q.float() @ k.float().transpose(-1, -2)) * scaling
    if bias is not None:
        scores = scores + bias
    lse = scores.logsumexp(dim=-1, keepdim=True)
    return (scores - lse).exp().to(v.dtype) @ v, lse


def join(first: Part, second: Part) -> Tensor:
    """The output over both parts' keys, from each part's output and log-sum-exp."""
    share = torch.sigmoid(second[1] - first[1]).to(first[0].dtype)
    return torch.lerp(first[0], second[0], share)
