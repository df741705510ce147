"""Truncated importance weights: learning from captions that another engine sampled.

A rollout engine computes with other kernels, another precision and perhaps another quantisation than the trainer, so
even with the same weights it samples from a distribution ``mu`` that is not quite the policy ``pi``. The gradient of
captions drawn from ``mu`` is made one for ``pi`` by the weight ``pi / mu``, with ``pi`` the policy before the update
(the trainer's own ``old_logprobs``) and ``mu`` the engine (``sampler_logprobs``). Truncation bounds its variance and
pays with a small bias (Ionides, "Truncated Importance Sampling", Journal of Computational and Graphical Statistics
17(2), 2008).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Level = Literal["token", "sequence"]
LOG_RATIO_LIMIT = 20.0
"""Bound on a log-ratio before exp: e^20 is far beyond any cap, and still finite in float32."""


@dataclass(frozen=True)
class Importance:
    """Weights of a batch's tokens, and the sums of their metrics."""

    weights: Float[Tensor, "n t"]
    """Truncated ratios; no gradient. 1 where the mask is False."""
    sums: Mapping[str, float]
    """Over tokens (level "token") or captions ("sequence"): ``count``, ``ratio``, ``capped``, ``weight`` and
    ``weight_squared``; and over tokens in any case: ``tokens`` and ``gap`` (absolute log-prob difference)."""
    max_ratio: float
    """Largest ratio before truncation; 0 when nothing counts."""


def truncated_importance(
    old_logprobs: Float[Tensor, "n t"],
    sampler_logprobs: Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    level: Level = "token",
    cap: float = 2.0,
) -> Importance:
    """``min(pi / mu, cap)`` for each token.

    Level "token" takes the ratio of each token's own probabilities: ``min(exp(old_t - sampler_t), cap)`` (truncated
    importance sampling, TIS: Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training",
    2025). Little variance, and a bias, since the ratio of the tokens before is left out.

    Level "sequence" gives all tokens of a caption the ratio of the whole caption's probabilities,
    ``min(exp(sum_t (old_t - sampler_t)), cap)``: without bias but for the cap, and with a variance that grows with
    the caption's length (Liu et al., "When Speed Kills Stability: Demystifying RL Collapse from the
    Training-Inference Mismatch", 2025).

    Both sides must speak of whole distributions: with top_p or top_k the engine would renormalise over the tokens
    that it kept, and every ratio would be below one.

    Args:
        old_logprobs: the trainer's, of the policy that the engine served.
        sampler_logprobs: the engine's, at the same temperature and with the same tokens banned.
        mask: caption tokens.
        level: over what the ratio is taken.
        cap: largest weight (C); at least 1.

    Examples:
        >>> old, sampler = torch.tensor([[0.7, 0.4]]).log(), torch.tensor([[0.1, 0.5]]).log()
        >>> both = torch.ones(1, 2, dtype=torch.bool)
        >>> truncated_importance(old, sampler, both).weights
        tensor([[2.0000, 0.8000]])
        >>> truncated_importance(old, sampler, both, level="sequence", cap=9.0).weights
        tensor([[5.6000, 5.6000]])
    """
    with torch.no_grad():
        difference = torch.where(mask, old_logprobs - sampler_logprobs, torch.zeros_like(old_logprobs))
        log_ratio = difference if level == "token" else difference.sum(dim=1, keepdim=True)
        ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
        weight = ratio.clamp(max=cap)
        counts = mask if level == "token" else mask.any(dim=1, keepdim=True)
        counted, kept = ratio[counts].double(), weight[counts].double()
        sums = {
            "count": float(counts.sum()),
            "ratio": float(counted.sum()),
            "capped": float((counted > cap).sum()),
            "weight": float(kept.sum()),
            "weight_squared": float(kept.square().sum()),
            "tokens": float(mask.sum()),
            "gap": float(difference.abs().sum()),
        }
        weights = torch.where(mask, weight.expand_as(difference), torch.ones_like(difference))
        return Importance(weights, sums, float(counted.max()) if len(counted) else 0.0)


def effective_sample_share(weight: float, weight_squared: float, count: float) -> float:
    """Kish's effective sample size over the number of samples: ``(sum w)^2 / (n sum w^2)``; 1 for equal weights.

    Args:
        weight: sum of the weights.
        weight_squared: sum of their squares.
        count: number of weights (n).

    Examples:
        >>> effective_sample_share(weight=2.0, weight_squared=2.0, count=4.0)  # two weights of 1, two of 0
        0.5
    """
    return weight**2 / (count * weight_squared) if count and weight_squared else 1.0
