"""From logits to the log-probs of the tokens that were written."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_LOGITS = 2**25
"""Logits that exist at one time: 128 MiB in float32, whatever the caption length and the vocabulary."""


def token_logprobs(
    logits: Float[Tensor, "*n vocab"],
    token_ids: Int[Tensor, "*n"],
    banned: Bool[Tensor, " vocab"] | None = None,
    temperature: float = 1.0,
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Log-prob of each token under its position's logits, and the entropy of each position.

    Computed in float32. Tokens in ``banned`` cannot be sampled, so they take no probability mass here either:
    sampling and learning must speak of the same distribution.

    Args:
        logits: one row of them per token, those that predict it.
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


def head_logprobs(
    head: Callable[[Tensor], Tensor],
    hidden: Float[Tensor, "m d"],
    token_ids: Int[Tensor, " m"],
    banned: Bool[Tensor, " vocab"],
    temperature: float = 1.0,
    chunk_logits: int = CHUNK_LOGITS,
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """:func:`token_logprobs` from hidden states, without ever holding all logits.

    The head runs on a chunk of tokens at a time, and again in the backward pass when there is more than one chunk.

    Args:
        head: from hidden states to logits.
        hidden: one row per token, the state that predicts it.
        token_ids, banned, temperature: as in :func:`token_logprobs`.
        chunk_logits: bound on the logits that exist at one time (at least one row of them).
    """

    def score(rows: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        return token_logprobs(head(rows), ids, banned, temperature)

    size = max(1, chunk_logits // len(banned))
    if len(token_ids) <= size:
        return score(hidden, token_ids)
    chunks = [
        checkpoint(score, rows, ids, use_reentrant=False, preserve_rng_state=False)
        for rows, ids in zip(hidden.split(size), token_ids.split(size), strict=True)
    ]
    logprobs, entropies = zip(*chunks, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)
