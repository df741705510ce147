"""From logits to the log-probs of the tokens that were written."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def token_logprobs(
    logits: Float[Tensor, "n t vocab"],
    token_ids: Int[Tensor, "n t"],
    banned: Bool[Tensor, " vocab"] | None = None,
    temperature: float = 1.0,
) -> tuple[Float[Tensor, "n t"], Float[Tensor, "n t"]]:
    """Log-prob of each token under its position's logits, and the entropy of each position.

    Computed in float32. Tokens in ``banned`` cannot be sampled, so they take no probability mass here either:
    sampling and learning must speak of the same distribution.

    Args:
        logits: position ``i`` predicts ``token_ids[:, i]``.
        token_ids: the tokens written; padding may hold any id that is not banned.
        banned: True for tokens that sampling cannot emit.
        temperature: the sampling temperature.

    Returns:
        Log-probs (with gradient) and entropies in nats (without: they are a metric).
    """
    logits = logits.float() / temperature
    if banned is not None:
        logits = logits.masked_fill(banned, float("-inf"))
    log_normaliser = logits.logsumexp(dim=-1)
    logprobs = logits.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1) - log_normaliser
    with torch.no_grad():
        # p * logit is 0 * -inf = nan at a banned token; its share of the entropy is 0.
        probabilities = (logits - log_normaliser.unsqueeze(-1)).exp()
        expected_logit = (probabilities * logits.masked_fill(probabilities == 0, 0.0)).sum(-1)
        entropy = log_normaliser - expected_logit
    return logprobs, entropy
