"""The canary: does the engine sample from the weights that are trained? Asked by comparing log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from racro_pl.policy.captioner import Captioner
from racro_pl.types import Rollout


@dataclass(frozen=True)
class Gap:
    """How far an engine's log-probs of its own captions are from the trainer's, per token (nats)."""

    mean: float
    highest: float
    tokens: int


def logprob_gap(captioner: Captioner, rollouts: Sequence[Rollout], temperature: float) -> Gap:
    """Score an engine's captions with the policy itself and compare, token by token.

    Args:
        captioner: the policy, with the weights that the engine is said to have sampled from.
        rollouts: captions with ``sampler_logprobs``.
        temperature: as in sampling.
    """
    gaps = []
    for rollout in rollouts:
        assert rollout.sampler_logprobs is not None
        everyone = torch.zeros(len(rollout.texts), dtype=torch.long)
        own = captioner.frozen_logprobs(
            [rollout.prompt], everyone, rollout.token_ids, rollout.mask, temperature, reference=False
        )
        gaps.append((own.cpu() - rollout.sampler_logprobs.cpu()).abs()[rollout.mask.cpu()])
    joined = torch.cat(gaps)
    return Gap(float(joined.mean()), float(joined.max()), len(joined))
