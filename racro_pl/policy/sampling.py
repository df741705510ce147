"""Captions sampled after prompts that are read once.

transformers' ``generate`` repeats the prompt's keys and values for every caption of a group, copies them at every
token, and carries finished captions along to the end. Here a group's captions share one copy, and leave when done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from racro_pl.policy.decode_attention import GrowingAttention, PromptAttention, StaticAttention
from racro_pl.policy.decoding import Draw, StaticStep, Written, say_without_graph, write_growing, write_static
from racro_pl.policy.shared_prefix import pack_prompts, read_row
from racro_pl.policy.structure import head_of
from racro_pl.policy.two_way import TwoWay
from racro_pl.types import Prompt


@dataclass(frozen=True)
class Captions:
    """What ``Captioner.generate`` wrote, prompt after prompt, ``group_size`` rows each."""

    token_ids: Int[Tensor, "n t"]
    mask: Bool[Tensor, "n t"]
    logprobs: Float[Tensor, "n t"]
    """What the tokens were drawn with, at the temperature of the sampling; 0 on padding, and where greedy."""
    texts: tuple[str, ...]
    truncated: tuple[bool, ...]


def sample_captions(
    model: Any,
    images: dict[str, Any] | None,
    prompts: Sequence[Prompt],
    group_size: int,
    max_new_tokens: int,
    draw: Draw,
    two_way: TwoWay | None = None,
    static: bool | None = None,
) -> Written:
    """Draw ``group_size`` captions after each prompt, those of one prompt side by side.

    Args:
        model: a transformers image-text-to-text model that :func:`racro_pl.policy.attention.install` has seen.
        images: ``mm_encoder_outputs`` of the prompts, in order.
        max_new_tokens: caption length limit, 1 or more.
        two_way: which image tokens see each other both ways.
        static: by :func:`racro_pl.policy.decoding.write_static`; where not given, on CUDA. On a CPU ended captions had
            better leave at once. Models with recurrent layers, whose states have no fixed place, cannot, which is said.

    Returns:
        Tokens, and the log-probs that they were drawn with (nats; 0 after an end, and where greedy).
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; expected 1 or more")
    device = draw.banned.device
    packed = pack_prompts(model.model, prompts, device, two_way)
    prefill = PromptAttention(packed.rows, packed.sight)
    hidden = read_row(model, packed.input_ids, packed.position_ids, prefill, images)
    logits = head_of(model)(hidden[packed.last]).repeat_interleave(group_size, dim=0)
    following = packed.next_position.repeat_interleave(group_size).expand(*packed.position_ids.shape[:-1], -1)
    states = (prefill.states, packed.rows.real, group_size)
    static = device.type == "cuda" if static is None else static
    if static and prefill.recurrent:
        say_without_graph("the states of recurrent layers have no fixed place")
    elif static:
        attention = StaticAttention(*states, max_new_tokens)
        return write_static(StaticStep(model, attention, logits, following, draw, max_new_tokens))
    growing = GrowingAttention(*states, prefill.recurrent)
    return write_growing(model, growing, logits, following, draw, max_new_tokens)
