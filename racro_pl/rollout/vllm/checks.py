"""What a vLLM server has to be like for rollouts, and the canary: does it sample from the weights that are trained?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from racro_pl.policy.captioner import Captioner
from racro_pl.rollout.vllm.adapter import served_models
from racro_pl.rollout.vllm.protocol import RolloutError, sampling_request
from racro_pl.serving.calls import ServerCalls
from racro_pl.serving.chat_client import Fault
from racro_pl.types import Rollout

BIAS = 100.0
"""vLLM's highest ``logit_bias``: a token that has it is sampled with a probability of 1."""
TOKENS = (10, 11)
"""Ordinary tokens of every byte-level vocabulary. Which does not matter, but that there are two."""
CANARY_THRESHOLDS = {"float32": 0.01, "bfloat16": 0.05}
"""Mean absolute log-prob difference per token that is still rounding. Measured on a CPU with the embedded captioner:
4e-7 in float32 and 0.002 to 0.003 in bfloat16; larger models round more often."""


def check_server(calls: ServerCalls, max_new_tokens: int) -> None:
    """Make sure that captions fit the server's context and that its log-probs are those of what it samples from.

    Raises:
        RolloutError: they do not, they are not, or there is no server.
    """
    bases = {name: context for name, (parent, context) in served_models(calls).items() if parent is None}
    contexts = [context for context in bases.values() if context]
    if contexts and min(contexts) <= max_new_tokens:
        raise RolloutError(
            f"the rollout server's context of {min(contexts)} tokens leaves no room for a prompt beside "
            f"max_new_tokens={max_new_tokens}: serve with a larger --max-model-len, or write shorter captions"
        )
    if bases:
        _check_logprobs(calls, next(iter(bases)))


def _check_logprobs(calls: ServerCalls, model: str) -> None:
    """Two tokens are made certain by a bias, each in its own request: after the bias both have a log-prob of 0.

    Before it, as vLLM tells them by default, their probabilities add up to one at most: one has less than a half,
    a log-prob of less than -0.69, whatever the model is. (Logits instead of log-probs would be near 100, or anything.)
    """
    found = []
    for token in TOKENS:
        request = sampling_request(
            [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
            model=model, captions=1, max_new_tokens=1, temperature=1.0, banned=(), eos_ids=(),
        ) | {"logit_bias": {str(token): BIAS}}  # fmt: skip
        try:
            answer = calls.call("POST", "chat/completions", request)
            found.append(float(answer["choices"][0]["logprobs"]["content"][0]["logprob"]))
        except Fault as fault:
            raise RolloutError(f"vLLM at {calls.where} lists {model!r} but samples nothing ({fault})") from None
        except (KeyError, IndexError, TypeError, ValueError, OverflowError):
            raise RolloutError(
                f"{calls.where} returns no log-probs with its chat completions: expected vLLM 0.11 or newer"
            ) from None
    if not all(abs(logprob) < 0.5 for logprob in found):
        raise RolloutError(
            f"vLLM at {calls.where} returns log-probs of another distribution than it samples from: "
            f"{found[0]:.2f} and {found[1]:.2f} for two tokens that a bias made certain, expected 0. "
            "Start it with --logprobs-mode processed_logprobs"
        )


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
