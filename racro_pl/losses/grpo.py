"""The clipped group-relative objective, with the KL term in the loss: the common form of all loss variants.

Left out on purpose: an entropy bonus (its coefficient is 0 in the reference) and a KL penalty inside the reward.
Different on purpose: the reference averages token means of micro-batches; here every sum is divided once, for the
whole optimizer step over all ranks (``losses/variants.py``), so that the split into micro-batches changes nothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from racro_pl.losses.kl import kl_estimate
from racro_pl.losses.variants import VARIANTS, Variant
from racro_pl.types import LossOutput


def grpo_loss(
    policy_logprobs: Float[Tensor, "n t"],
    old_logprobs: Float[Tensor, "n t"] | None,
    ref_logprobs: Float[Tensor, "n t"] | None,
    advantages: Float[Tensor, " n"],
    mask: Bool[Tensor, "n t"],
    importance: Float[Tensor, "n t"] | None = None,
    variant: Variant = VARIANTS["grpo"],
) -> LossOutput:
    """Sum of the clipped policy loss plus ``kl_coefficient`` times the KL estimate, not divided by anything yet.

    With ``r = exp(policy - old)`` and advantage ``A``: ``L = max(-A r, -A clamp(r, 1 - clip_low, 1 + clip_high))``,
    and for ``A < 0`` at most ``-A dual_clip`` (the reference implementation's ``compute_policy_loss``).

    Ratio "token": ``sum_it (L_it + kl_coefficient * kl_it)``. Ratio "sequence": ``r`` is the caption's
    ``exp(mean_t (policy_t - old_t))``, and each caption adds the mean over its tokens: ``sum_i L_i`` and its mean KL.

    Args:
        policy_logprobs: of the policy now, with gradient.
        old_logprobs: of the policy that sampled; None means it is the same policy (ratio 1, gradient kept).
        ref_logprobs: of the reference; may be None only when ``kl_coefficient`` is 0.
        advantages: one per caption.
        mask: tokens that count.
        importance: weights of the policy term (not of the KL term) where another engine sampled, see
            :func:`~racro_pl.losses.importance.truncated_importance`; None for 1 everywhere. A sequence's term gets
            the mean of its tokens' weights.
        variant: the loss and its numbers.

    Returns:
        Sums, not normalised: divide the gradient by the step's :func:`~racro_pl.losses.variants.divisor`. The sums
        of the metrics are per token, for a sequence's ratio too.

    Raises:
        ValueError: a KL term is asked for without reference log-probs.
    """
    if variant.kl_coefficient and ref_logprobs is None:
        raise ValueError(f"kl_coefficient is {variant.kl_coefficient} but there are no reference log-probs")
    old = policy_logprobs.detach() if old_logprobs is None else old_logprobs
    # exp overflows near 88; a ratio of e^20 is clipped all the same, and a finite one keeps the gradient finite.
    token_log_ratio = (policy_logprobs - old).clamp(-20.0, 20.0)
    log_ratio = _masked_mean(token_log_ratio, mask) if variant.ratio == "sequence" else token_log_ratio
    token_loss, clipped, dual_clipped = _clipped_loss(advantages.unsqueeze(1), log_ratio.exp(), variant)
    if importance is not None:
        token_loss = importance * token_loss

    kl = torch.zeros_like(token_loss)
    if ref_logprobs is not None:
        kl = kl_estimate(policy_logprobs, ref_logprobs, variant.kl)
    total = token_loss + variant.kl_coefficient * kl
    if variant.ratio == "sequence":
        total = total / mask.sum(dim=1, keepdim=True).clamp(min=1)
    with torch.no_grad():
        sums = {
            "kl": _masked_sum(kl, mask),
            "approximate_kl": _masked_sum(-token_log_ratio, mask),
            "clip_share": _masked_sum(clipped.to(kl.dtype), mask),
            "dual_clip_share": _masked_sum(dual_clipped.to(kl.dtype), mask),
        }
    return LossOutput(loss=_masked_sum(total, mask), sums=sums)


def _clipped_loss(
    advantage: Float[Tensor, "n 1"], ratio: Float[Tensor, "n t"], variant: Variant
) -> tuple[Float[Tensor, "n t"], Bool[Tensor, "n t"], Bool[Tensor, "n t"]]:
    """Each token's loss, and whether its ratio was clipped and its loss bounded by the dual clip."""
    plain = -advantage * ratio
    clipped = -advantage * ratio.clamp(1.0 - variant.clip_low, 1.0 + variant.clip_high)
    bounded = torch.maximum(plain, clipped)
    ceiling = -advantage * variant.dual_clip
    beyond = (advantage < 0) & (bounded > ceiling)
    return torch.where(beyond, ceiling, bounded), clipped > plain, beyond


def _masked_sum(values: Float[Tensor, "n t"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, ""]:
    # where, not a product: a masked token may hold inf or nan, and nan * 0 is nan (in the gradient as well).
    return torch.where(mask, values, torch.zeros_like(values)).sum()


def _masked_mean(values: Float[Tensor, "n t"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    """Each row's mean over the tokens that count, in every column; 0 in a row without any."""
    kept = torch.where(mask, values, torch.zeros_like(values))
    mean = kept.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return mean.expand_as(values)
