"""The canary: does the engine sample from the weights that are trained? Asked by comparing log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from racro_pl.policy.captioner import Captioner
from racro_pl.rollout.vllm.protocol import RolloutError
from racro_pl.types import Rollout

CANARY_THRESHOLDS = {"float32": 0.01, "bfloat16": 0.05}
"""Mean absolute log-prob difference per token that is still rounding. Measured on a CPU with the embedded captioner:
4e-7 in float32 and 0.002 to 0.003 in bfloat16; larger models round more often."""


@dataclass(frozen=True)
class Gap:
    """How far an engine's log-probs of its own captions are from the trainer's, per token (nats)."""

    mean: float
    highest: float
    base_mean: float
    """Mean distance from the trainer's base, adapter off: how far the wrong answer would be."""
    tokens: int

    @property
    def nearer_to_base(self) -> bool:
        """Whether the engine rather has the base alone: what an adapter that is ignored looks like.

        A factor of two is beyond chance: with the adapter on, rounding puts both distances apart by a few per cent,
        and the base's is the larger one as soon as the adapter does anything.
        """
        return self.mean > 2.0 * self.base_mean


def logprob_gap(captioner: Captioner, rollouts: Sequence[Rollout], temperature: float) -> Gap:
    """Score an engine's captions with the policy itself and compare, token by token.

    Args:
        captioner: the policy, with the weights that the engine is said to have sampled from.
        rollouts: captions with ``sampler_logprobs``.
        temperature: as in sampling.
    """
    gaps: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    for rollout in rollouts:
        assert rollout.sampler_logprobs is not None
        everyone = torch.zeros(len(rollout.texts), dtype=torch.long)
        for base, found in gaps.items():
            # The bare base, not the reference: an engine that ignores adapters ignores the one to start from as well.
            with captioner.without_adapter() if base else nullcontext():
                own = captioner.frozen_logprobs(
                    [rollout.prompt], everyone, rollout.token_ids, rollout.mask, temperature, reference=False
                )
            found.append((own - rollout.sampler_logprobs).abs()[rollout.mask])
    policy, base_only = torch.cat(gaps[False]), torch.cat(gaps[True])
    return Gap(float(policy.mean()), float(policy.max()), float(base_only.mean()), len(policy))


def check_gap(gap: Gap, threshold: float) -> None:
    """Stop a run whose engine samples from other weights than those that are trained.

    Raises:
        RolloutError: the gap is above the threshold, or the base without adapter is nearer.
    """
    if gap.nearer_to_base or not gap.mean <= threshold:
        raise RolloutError(
            f"canary: vLLM's log-probs of its own captions differ from the trainer's by {gap.mean:.3g} nats per "
            f"token on average (highest {gap.highest:.3g}, over {gap.tokens} tokens), and by {gap.base_mean:.3g} "
            "from those of the base without adapter; expected them nearer to the trainer's, and within "
            f"canary_threshold={threshold:g}. It does not sample from the weights that are trained: was "
            "the adapter loaded, is the base the same (path, dtype, quantization), and does the server run with "
            "--logprobs-mode processed_logprobs? If a known difference, such as a base quantised on one side "
            "only, explains it, raise canary_threshold above it"
        )
