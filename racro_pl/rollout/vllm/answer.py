"""How vLLM's answer to one question is checked, field by field, before anything is learnt from it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from racro_pl.rollout.vllm.protocol import RolloutError
from racro_pl.types import Prompt

LOWEST_LOGPROB = -9999.0
"""What vLLM writes for a log-prob of -inf, which JSON cannot hold: no sampled token has it."""
ROUNDING = 1e-4
"""By how much a log-prob may be above 0: the float32 error of a difference of logits in the hundreds."""
WHOLE = {"stop": True, "length": False}
"""Reasons for which a caption ends, and whether it has come to its end. A request that was aborted (``abort``) or
failed (``error``) returns a piece of a caption, which nothing may be learnt from."""
_NEIGHBOURS = 8
_MAX_SHOWN = 80


@dataclass(frozen=True)
class Asked:
    """What the request was, as far as the answer has to fit it."""

    model: str
    """Name under which the adapter is served."""
    captions: int
    max_new_tokens: int
    vocabulary: int
    """Number of tokens; ids are below it."""
    eos_ids: frozenset[int]
    banned: frozenset[int]


@dataclass(frozen=True)
class Sampled:
    """One question's captions as vLLM returned them, padded on the right."""

    token_ids: Int[Tensor, "g t"]
    mask: Bool[Tensor, "g t"]
    logprobs: Float[Tensor, "g t"]
    truncated: tuple[bool, ...]


def read_captions(data: Any, prompt: Prompt, asked: Asked, pad_id: int) -> Sampled:
    """Check a response against what was asked, and take the captions out of it.

    Args:
        prompt: the prompt as the trainer reads it.
        pad_id: fills the rows up.

    Raises:
        RolloutError: vLLM read another prompt, served other weights, or returned something else than captions with
            the log-prob of each token; the message names the field.
    """
    served = _field(data, "model", "")
    if served != asked.model:
        raise RolloutError(f"the rollout server sampled from {_short(served)}, not from the adapter {asked.model!r}")
    _check_prompt(prompt.input_ids.tolist(), _field(data, "prompt_token_ids", ""))
    rows = [_read_choice(choice, f"choices[{place}]", asked) for place, choice in _in_order(data, asked.captions)]
    length = max(len(ids) for ids, _, _ in rows)
    return Sampled(
        token_ids=torch.tensor([ids + [pad_id] * (length - len(ids)) for ids, _, _ in rows]),
        mask=torch.tensor([[True] * len(ids) + [False] * (length - len(ids)) for ids, _, _ in rows]),
        logprobs=torch.tensor(
            [logprobs + [0.0] * (length - len(logprobs)) for _, logprobs, _ in rows], dtype=torch.float32
        ),
        truncated=tuple(not whole for _, _, whole in rows),
    )


def _in_order(data: Any, captions: int) -> list[tuple[int, Any]]:
    """The choices with their places in the response, by ``index``: their order is not promised."""
    choices = _list(_field(data, "choices", ""), "choices")
    if len(choices) != captions:
        raise _wrong("choices", f"{len(choices)} captions", f"{captions}")
    indices = [_field(choice, "index", f"choices[{place}]") for place, choice in enumerate(choices)]
    if not all(_is_int(index) for index in indices) or sorted(indices) != list(range(captions)):
        raise _wrong("choices[...].index", _short(indices), f"each of 0 to {captions - 1} once")
    return sorted(enumerate(choices), key=lambda item: indices[item[0]])


def _read_choice(choice: Any, at: str, asked: Asked) -> tuple[list[int], list[float], bool]:
    """Token ids, log-probs, and whether the caption has come to its end."""
    ids = _list(_field(choice, "token_ids", at), f"{at}.token_ids")
    entries = _list(_field(_field(choice, "logprobs", at), "content", f"{at}.logprobs"), f"{at}.logprobs.content")
    if not 1 <= len(ids) <= asked.max_new_tokens:
        raise _wrong(f"{at}.token_ids", f"{len(ids)} tokens", f"1 to max_new_tokens={asked.max_new_tokens}")
    if len(entries) != len(ids):
        raise _wrong(f"{at}.logprobs.content", f"{len(entries)} entries", f"{len(ids)}, each token with its log-prob")
    for place, token in enumerate(ids):
        if not _is_int(token) or not 0 <= token < asked.vocabulary:
            raise _wrong(f"{at}.token_ids[{place}]", _short(token), f"an integer from 0 to {asked.vocabulary - 1}")
    if forbidden := asked.banned.intersection(ids):
        raise RolloutError(f"the rollout server sampled the banned tokens {sorted(forbidden)} ({at}.token_ids)")
    logprobs = [
        _logprob(_field(entry, "logprob", f"{at}.logprobs.content[{place}]"), f"{at}.logprobs.content[{place}].logprob")
        for place, entry in enumerate(entries)
    ]
    return ids, logprobs, _has_ended(_field(choice, "finish_reason", at), ids, at, asked.eos_ids)


def _logprob(value: Any, at: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and LOWEST_LOGPROB < value <= ROUNDING:
        return min(float(value), 0.0)
    raise _wrong(at, _short(value), f"a number, finite (above {LOWEST_LOGPROB:g}) and at most 0")


def _has_ended(reason: Any, ids: list[int], at: str, eos_ids: frozenset[int]) -> bool:
    if not isinstance(reason, str) or reason not in WHOLE:
        raise _wrong(f"{at}.finish_reason", _short(reason), " or ".join(WHOLE))
    place = next((place for place, token in enumerate(ids) if token in eos_ids), None)
    if WHOLE[reason] != (place is not None) or place not in (None, len(ids) - 1):
        raise RolloutError(
            f"the rollout server ended a caption with {reason!r} after token {ids[-1]}, and its first end token is "
            f"at {place} of {len(ids)} ({at}); the trainer's end tokens are {sorted(eos_ids)}"
        )
    return WHOLE[reason]


def _field(value: Any, name: str, at: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        path = f"{at}.{name}" if at else name
        found = "" if isinstance(value, dict) else f" (found {_short(value)} where it belongs)"
        raise RolloutError(
            f"the rollout server's answer has no {path}{found}: expected vLLM's chat completions with "
            "return_token_ids and logprobs (vLLM 0.11 or newer)"
        )
    return value[name]


def _list(value: Any, at: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(at, _short(value), "a list")
    return value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong(at: str, found: str, expected: str) -> RolloutError:
    return RolloutError(f"the rollout server returned a wrong {at}: {found}; expected {expected}")


def _short(value: Any) -> str:
    """A value of the server's on one line: its kind where it is a container, else its start."""
    if isinstance(value, (dict, list)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 64:
        return "an integer of more than 64 bits"
    return repr(value)[:_MAX_SHOWN]


def _check_prompt(expected: list[int], found: Any) -> None:
    """Raise where two prompts part."""
    if not isinstance(found, list) or not all(map(_is_int, found)):
        wrong = _short(found) if not isinstance(found, list) else "a list with something else in it"
        raise _wrong("prompt_token_ids", wrong, "a list of integers (vLLM's return_token_ids)")
    if found == expected:
        return
    pairs = zip(expected, found, strict=False)
    first = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(expected), len(found)))
    start = max(0, first - _NEIGHBOURS // 2)
    window = slice(start, start + _NEIGHBOURS)
    raise RolloutError(
        f"vLLM reads another prompt than the trainer: {len(found)} tokens instead of {len(expected)}, the first "
        f"difference at {first}: expected {expected[window]}, found {[_short(token) for token in found[window]]} "
        f"(from token {start}). Serve the trainer's own model folder (tokenizer, chat template, image processor), and "
        "with image limits that hold the trainer's: --mm-processor-kwargs with min_pixels at most, and max_pixels at "
        "least, those of model.policy"
    )
