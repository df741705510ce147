"""The GRPO objective of the reference run: clipped ratio with a dual clip, and a k3 KL term in the loss.

Left out on purpose: an entropy bonus (its coefficient is 0 in the reference) and a KL penalty inside the reward.
Different on purpose: the reference averages token means of micro-batches; here every sum is divided once, by the
tokens of the whole optimizer step over all ranks, so that the split into micro-batches changes nothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from racro_pl.types import LossOutput

KL_LIMIT = 10.0
"""Bound on the k3 estimate of one token, as in the reference implementation."""


def k3_divergence(policy_logprobs: Float[Tensor, "n t"], ref_logprobs: Float[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    """Per-token estimate of KL(policy || reference): ``exp(d) - d - 1`` with ``d = ref - policy``, within ±10.

    Never negative, zero where the two agree; the gradient flows through ``policy_logprobs``.

    Example:
        >>> k3_divergence(torch.tensor([[0.0]]), torch.tensor([[0.1]])).round(decimals=6)
        tensor([[0.0052]])
    """
    # Clamped before exp as well: exp of a large gap is inf, and inf's gradient is nan even where clamp hides it.
    difference = (ref_logprobs - policy_logprobs).clamp(-20.0, 20.0)
    return (difference.exp() - difference - 1.0).clamp(-KL_LIMIT, KL_LIMIT)


def grpo_loss(
    policy_logprobs: Float[Tensor, "n t"],
    old_logprobs: Float[Tensor, "n t"] | None,
    ref_logprobs: Float[Tensor, "n t"] | None,
    advantages: Float[Tensor, " n"],
    mask: Bool[Tensor, "n t"],
    importance: Float[Tensor, "n t"] | None = None,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float = 3.0,
    kl_coefficient: float = 1e-3,
) -> LossOutput:
    """Sum over tokens of the clipped policy loss plus ``kl_coefficient`` times the k3 divergence.

    With ``r = exp(policy - old)`` and advantage ``A``: ``L = max(-A r, -A clamp(r, 1 - clip_low, 1 + clip_high))``,
    and for ``A < 0`` at most ``-A dual_clip`` (the reference implementation's ``compute_policy_loss``).

    Args:
        policy_logprobs: of the policy now, with gradient.
        old_logprobs: of the policy that sampled; None means it is the same policy (ratio 1, gradient kept).
        ref_logprobs: of the reference; may be None only when ``kl_coefficient`` is 0.
        advantages: one per caption.
        mask: tokens that count.
        importance: weights of the policy term (not of the KL term) where another engine sampled, see
            :func:`~racro_pl.losses.importance.truncated_importance`; None for 1 everywhere.
        clip_low, clip_high: how far the ratio may fall below and rise above 1.
        dual_clip: bound on the ratio for captions with a negative advantage; above 1.
        kl_coefficient: weight of the KL term, per token.

    Returns:
        Sums over the tokens that count, not normalised: divide the gradient by the step's tokens.

    Raises:
        ValueError: a KL term is asked for without reference log-probs.
    """
    if kl_coefficient and ref_logprobs is None:
        raise ValueError(f"kl_coefficient is {kl_coefficient} but there are no reference log-probs")
    old = policy_logprobs.detach() if old_logprobs is None else old_logprobs
    # exp overflows near 88; a ratio of e^20 is clipped all the same, and a finite one keeps the gradient finite.
    log_ratio = (policy_logprobs - old).clamp(-20.0, 20.0)
    ratio = log_ratio.exp()
    advantage = advantages.unsqueeze(1)
    plain = -advantage * ratio
    clipped = -advantage * ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    bounded = torch.maximum(plain, clipped)
    ceiling = -advantage * dual_clip
    negative = advantage < 0
    token_loss = torch.where(negative, torch.minimum(ceiling, bounded), bounded)
    if importance is not None:
        token_loss = importance * token_loss

    kl = k3_divergence(policy_logprobs, ref_logprobs) if ref_logprobs is not None else torch.zeros_like(token_loss)
    weight = mask.to(token_loss.dtype)
    loss = _masked_sum(token_loss + kl_coefficient * kl, mask)
    with torch.no_grad():
        sums = {
            "kl": _masked_sum(kl, mask),
            "approximate_kl": _masked_sum(-log_ratio, mask),
            "clip_share": _masked_sum((clipped > plain).to(weight.dtype), mask),
            "dual_clip_share": _masked_sum((negative & (bounded > ceiling)).to(weight.dtype), mask),
        }
    return LossOutput(loss=loss, tokens=weight.sum(), sums=sums)


def _masked_sum(values: Float[Tensor, "n t"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, ""]:
    # where, not a product: a masked token may hold inf or nan, and nan * 0 is nan (in the gradient as well).
    return torch.where(mask, values, torch.zeros_like(values)).sum()
