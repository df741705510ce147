"""The loss variants by name. Each is one row of a table: what the papers change is few and orthogonal.

All of them are the clipped objective of ``losses/grpo.py``. With ``A_i`` the advantage of caption ``i`` of ``N``,
``r`` a probability ratio and ``C(r) = max(-A r, -A clamp(r, 1 - clip_low, 1 + clip_high))``:

``grpo``
    The reference run: ``sum_it C(r_it) / tokens``, a dual clip for negative advantages, KL in the loss.
    (Its own code averages token means of micro-batches; here there is one denominator for the whole update.)
``dapo``
    ``sum_it C(r_it) / tokens`` with ``clip_high`` 0.28 above ``clip_low`` 0.2, no KL term (Yu et al., "DAPO: An
    Open-Source LLM Reinforcement Learning System at Scale", 2025: token-level loss, eq. 8, and clip-higher). The
    paper's other two parts, refilling of flat groups and a penalty on overlong answers, are not losses.
``dr_grpo``
    ``sum_it C(r_it) / (N * longest)`` with advantages ``r_i - mean`` that are not divided by the std, no KL term (Liu
    et al., "Understanding R1-Zero-Like Training: A Critical Perspective", 2025). ``longest`` is the caption length
    limit: a constant, so that neither long wrong captions nor easy and hard questions are weighted differently.
``gspo``
    ``sum_i C(s_i) / N`` with the sequence's ratio ``s_i = exp(mean_t log r_it)`` and clip ranges that fit its smaller
    scale (Zheng et al., "Group Sequence Policy Optimization", 2025, eq. 5 and 7; ranges from its experiments). The
    paper leaves the KL term out of its formulas "for brevity"; here it is a caption's mean over tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from jaxtyping import Bool
from torch import Tensor

from racro_pl.losses.kl import Estimator

LossName = Literal["grpo", "dapo", "dr_grpo", "gspo"]


@dataclass(frozen=True)
class Variant:
    """One loss, with its numbers."""

    ratio: Literal["token", "sequence"]
    """Over what the probability ratio is taken and clipped."""
    divisor: Literal["tokens", "captions", "longest"]
    """What the summed gradient is divided by, see :func:`divisor`."""
    divide_by_std: bool
    """Whether advantages are divided by their group's standard deviation."""
    clip_low: float
    """How far the ratio may fall below 1."""
    clip_high: float
    """How far the ratio may rise above 1."""
    dual_clip: float
    """Bound on the ratio of captions with a negative advantage; inf for none."""
    kl_coefficient: float
    """Weight of the KL term; 0 for none."""
    kl: Estimator = "k3"
    """Estimator of the KL term."""


VARIANTS: dict[LossName, Variant] = {
    "grpo": Variant("token", "tokens", True, clip_low=0.2, clip_high=0.2, dual_clip=3.0, kl_coefficient=1e-3),
    "dapo": Variant("token", "tokens", True, clip_low=0.2, clip_high=0.28, dual_clip=inf, kl_coefficient=0.0),
    "dr_grpo": Variant("token", "longest", False, clip_low=0.2, clip_high=0.2, dual_clip=inf, kl_coefficient=0.0),
    "gspo": Variant("sequence", "captions", True, clip_low=3e-4, clip_high=4e-4, dual_clip=inf, kl_coefficient=1e-3),
}
"""Defaults of each loss: its paper's numbers; the reference run's KL coefficient where a paper gives none."""


def divisor(variant: Variant, mask: Bool[Tensor, "n t"], longest: int) -> float:
    """What a batch adds to the number that the step's summed gradient is divided by.

    Divisors of micro-batches and ranks add up, so the gradient of an update does not depend on how it was cut.
    A caption without a score (no token of it counts) adds nothing.

    Args:
        variant: ``tokens``: those that count; ``captions``: those with a token that counts; ``longest``: as many
            times the caption length limit.
        mask: tokens that count, those of captions with advantage 0 included.
        longest: the caption length limit in tokens.

    Examples:
        >>> import torch
        >>> mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
        >>> [divisor(VARIANTS[name], mask, longest=16) for name in ("grpo", "gspo", "dr_grpo")]
        [3.0, 2.0, 32.0]
    """
    if variant.divisor == "tokens":
        return float(mask.sum())
    captions = float(mask.any(dim=1).sum())
    return captions if variant.divisor == "captions" else captions * longest
