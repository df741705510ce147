"""Estimates of KL(policy || reference) from one sample per token: k1, k2 and k3.

With ``d = log reference - log policy`` of a token that the policy sampled (Schulman, "Approximating KL Divergence",
2020, joschu.net/blog/kl-approx.html):

====  =====================  =======================================  ============================================
name  value                  as an estimate of the divergence         expected gradient when used as a loss
====  =====================  =======================================  ============================================
k1    ``-d``                 unbiased, high variance, may be negative  zero: **not** a gradient of any divergence
k2    ``d^2 / 2``            biased, low variance                     that of KL(policy || reference)
k3    ``exp(d) - d - 1``     unbiased, low variance, never negative   that of KL(reference || policy)
====  =====================  =======================================  ============================================

The last column is what matters here, because the term is in the loss and gradients flow through the log-probs of
samples, not through the sampling (Tang and Munos, "On a few pitfalls in KL divergence gradient estimation for RL",
2025). k1 as a loss adds ``grad log policy``, whose mean under the policy is zero: noise without a pull towards the
reference. It is here to watch the divergence with, or to reproduce runs that used it. All three hold at the policy
that sampled; the tests enumerate a distribution to check every entry.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]

K3_LIMIT = 10.0
"""Bound on the k3 estimate of one token, as in the reference implementation."""


def kl_estimate(
    policy_logprobs: Float[Tensor, "n t"], ref_logprobs: Float[Tensor, "n t"], estimator: Estimator = "k3"
) -> Float[Tensor, "n t"]:
    """The estimate of each token; the gradient flows through ``policy_logprobs``. Zero where the two agree.

    Args:
        policy_logprobs: of the policy, (n, t).
        ref_logprobs: of the reference, for the same tokens.
        estimator: which; k3 is bounded by 10 per token, as in the reference implementation.

    Examples:
        >>> import torch
        >>> policy, reference = torch.tensor([[0.0]]), torch.tensor([[0.1]])
        >>> [round(kl_estimate(policy, reference, name).item(), 6) for name in ("k1", "k2", "k3")]
        [-0.1, 0.005, 0.005171]
    """
    # Clamped before exp as well: exp of a large gap is inf, and inf's gradient is nan even where clamp hides it.
    difference = (ref_logprobs - policy_logprobs).clamp(-20.0, 20.0)
    if estimator == "k1":
        return -difference
    if estimator == "k2":
        return difference.square() / 2
    return (difference.exp() - difference - 1.0).clamp(-K3_LIMIT, K3_LIMIT)
