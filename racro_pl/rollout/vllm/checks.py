"""What a vLLM server has to be like for rollouts, found out before anything is sampled."""

from __future__ import annotations

from racro_pl.rollout.vllm.adapter import served_models
from racro_pl.rollout.vllm.protocol import RolloutError, sampling_request
from racro_pl.serving.calls import Fault, ServerCalls

BIAS = 100.0
"""vLLM's highest ``logit_bias``: a token that has it is sampled with a probability of 1."""
TOKENS = (10, 11)
"""Ordinary tokens of every byte-level vocabulary. Which does not matter, but that there are two."""


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
