"""Captions sampled after prompts that are read once.

transformers' ``generate`` repeats the prompt's keys and values for every caption of a group, copies them at every
token, and carries finished captions along to the end. Here a group's captions share one copy, and leave when done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from racro_pl.policy.attention import PromptSight, Rows
from racro_pl.policy.bounded_attention import bounded_attention
from racro_pl.policy.partial_attention import as_autocast, attend, hiding_bias, join
from racro_pl.policy.recurrent import LayerState, LeftRows, Run
from racro_pl.policy.shared_prefix import pack_prompts, read_row
from racro_pl.policy.structure import head_of
from racro_pl.policy.two_way import TwoWay
from racro_pl.types import Prompt

FIRST_ROOM = 64
"""Caption tokens that keys and values are first given room for; doubled when full."""


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
    temperature: float | None,
    banned: Bool[Tensor, " vocab"],
    eos_ids: frozenset[int],
    pad_id: int,
    two_way: TwoWay | None = None,
) -> tuple[Int[Tensor, "n t"], Float[Tensor, "n t"]]:
    """Draw ``group_size`` captions after each prompt, those of one prompt side by side.

    Args:
        model: a transformers image-text-to-text model that :func:`racro_pl.policy.attention.install` has seen.
        images: ``mm_encoder_outputs`` of the prompts, in order.
        prompts: B prompts.
        group_size: captions per prompt.
        max_new_tokens: caption length limit.
        temperature: None for greedy.
        banned: tokens that must not be drawn.
        eos_ids: tokens that end a caption.
        pad_id: fills the cells after an end.
        two_way: which image tokens see each other both ways.

    Returns:
        Tokens, and the log-probs that they were drawn with (nats; 0 after an end, and where greedy).
    """
    device = banned.device
    packed = pack_prompts(model.model, prompts, device, two_way)
    prefill = PromptAttention(packed.rows, packed.sight)
    head = head_of(model)
    hidden = read_row(model, packed.input_ids, packed.position_ids, prefill, images)
    logits = head(hidden[packed.last]).repeat_interleave(group_size, dim=0)
    attention = GrowingAttention(prefill.states, packed.rows.real, group_size, prefill.recurrent)
    ends = torch.tensor(sorted(eos_ids), device=device)
    captions = torch.full((len(logits), max_new_tokens), pad_id, device=device)
    logprobs = torch.zeros(captions.shape, device=device)
    writing = torch.arange(len(logits), device=device)
    positions = packed.next_position.repeat_interleave(group_size)
    for step in range(max_new_tokens):
        drawn, logprobs[writing, step] = _draw(logits, temperature, banned)
        captions[writing, step] = drawn
        going_on = (~torch.isin(drawn, ends)).nonzero()[:, 0]
        if len(going_on) == 0 or step + 1 == max_new_tokens:
            return captions[:, : step + 1], logprobs[:, : step + 1]
        if len(going_on) < len(drawn):
            attention.keep(going_on)
            drawn, writing, positions = drawn[going_on], writing[going_on], positions[going_on]
        following = (positions + step).expand(*packed.position_ids.shape[:-1], -1)
        hidden = read_row(model, drawn[None], following, attention)
        attention.advance()
        logits = head(hidden)
    raise ValueError(f"max_new_tokens is {max_new_tokens}; expected 1 or more")


def _draw(
    logits: Float[Tensor, "n vocab"], temperature: float | None, banned: Bool[Tensor, " vocab"]
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    logits = logits.float().masked_fill(banned, float("-inf"))
    if temperature is None:
        return logits.argmax(dim=-1), logits.new_zeros(len(logits))
    probabilities = (logits / temperature).softmax(dim=-1)
    drawn = torch.multinomial(probabilities, 1)
    return drawn[:, 0], probabilities.gather(1, drawn)[:, 0].log()


class PromptAttention:
    """Prompts attend to themselves, and their keys and values are kept."""

    def __init__(self, prompts: Rows, sight: PromptSight | None = None) -> None:
        self.prompts = prompts
        self.sight = sight or PromptSight(prompts)
        self.states: dict[int, tuple[Tensor, Tensor]] = {}
        """Keys and values (b, kv_heads, p, d), by layer."""
        self.recurrent: dict[int, LayerState] = {}
        """States after the prompts, by layer."""

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None = None
    ) -> Tensor:
        q, k, v = (self.prompts.pad(x[0].transpose(0, 1)) for x in as_autocast(query, key, value))
        self.states[layer] = (k.contiguous(), v.contiguous())
        out = bounded_attention(q, k, v, scaling, self.sight.mask(window, q.dtype))
        return self.prompts.unpad(out)[None]

    def recur(self, layer: int, run: Run, hidden: Float[Tensor, "1 tokens h"]) -> Float[Tensor, "1 tokens h"]:
        """A recurrent layer over the prompts, whose state is kept."""
        self.recurrent[layer] = LayerState()
        return LeftRows(self.prompts.real).run(run, hidden[0], self.recurrent[layer])[None]


class GrowingAttention:
    """One new token of every caption attends to its prompt and to the caption so far.

    The softmax over both is put together from the two parts by their log-sum-exp, so that a group reads one copy
    of its prompt.

    Args:
        prompt_states: keys and values of the prompts, by layer.
        real: (b, p) False on the prompts' padding.
        group_size: captions per prompt.
        recurrent: states of the recurrent layers after the prompts, by layer.
    """

    def __init__(
        self,
        prompt_states: dict[int, tuple[Tensor, Tensor]],
        real: Bool[Tensor, "b p"],
        group_size: int,
        recurrent: Mapping[int, LayerState] | None = None,
    ) -> None:
        self._prompts = prompt_states
        self._dtype = next(iter(prompt_states.values()))[0].dtype
        self._real = real
        self._group = torch.arange(len(real), device=real.device).repeat_interleave(group_size)
        self._recurrent = {layer: state.select(self._group) for layer, state in (recurrent or {}).items()}
        self._own: dict[int, tuple[Tensor, Tensor]] = {}
        self._written = 0
        self._hide()
        self._arrange()

    def keep(self, rows: Int[Tensor, " m"]) -> None:
        """Let all captions but these leave, and with a group's last one its prompt."""
        self._own = {i: (k.index_select(0, rows), v.index_select(0, rows)) for i, (k, v) in self._own.items()}
        self._recurrent = {layer: state.select(rows) for layer, state in self._recurrent.items()}
        present, self._group = self._group[rows].unique(return_inverse=True)
        if len(present) < len(self._real):
            self._prompts = {
                i: (k.index_select(0, present), v.index_select(0, present)) for i, (k, v) in self._prompts.items()
            }
            self._real = self._real[present]
            self._hide()
        self._windows.clear()
        self._arrange()

    def advance(self) -> None:
        """All layers have seen the token."""
        self._written += 1
        self._windows.clear()

    def _hide(self) -> None:
        padding = ~self._real
        self._bias = hiding_bias(padding, self._dtype) if bool(padding.any()) else None
        self._windows: dict[int, tuple[Tensor, Tensor]] = {}

    def _within(self, window: int) -> tuple[Float[Tensor, "b 1 1 p"], Bool[Tensor, "b 1 1 1"]]:
        """What hides prompt tokens that have left the window of the token being written, and whether all have.

        Where all have, one stays in sight, so that nothing is divided by nothing; its part then gets no weight.
        """
        if window not in self._windows:
            now = self._real.sum(dim=1, keepdim=True) + self._written
            hidden = ~self._real | (now - torch.arange(self._real.shape[1], device=now.device) >= window)
            gone = hidden.all(dim=1)
            hidden[:, 0] &= ~gone
            self._windows[window] = (hiding_bias(hidden, self._dtype), gone[:, None, None, None])
        return self._windows[window]

    def _arrange(self) -> None:
        """Captions by group: a rectangle with one row per prompt, some cells maybe empty."""
        sizes = self._group.bincount()
        self._captions = Rows(torch.arange(int(sizes.max()), device=sizes.device) < sizes[:, None])

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None = None
    ) -> Tensor:
        if window is not None and window >= self._real.shape[1] + self._written + 1:
            window = None
        q, k, v = (x[0].transpose(0, 1) for x in as_autocast(query, key, value))  # (n, heads, d)
        n, kv_heads, d = k.shape
        own_k, own_v = self._append(layer, k, v, window)
        own = attend(q.view(n, kv_heads, -1, d), own_k, own_v, scaling)
        b, g = self._captions.real.shape
        # All of a group's queries against one copy of the keys.
        grouped = self._captions.pad(q).transpose(1, 2).view(b, g, kv_heads, -1, d)
        bias, gone = (self._bias, None) if window is None else self._within(window)
        out, lse = attend(grouped.transpose(1, 2).flatten(2, 3), *self._prompts[layer], scaling, bias)
        if gone is not None:
            lse = lse.masked_fill(gone, float("-inf"))
        joined = join((self._by_caption(out), self._by_caption(lse)), own)
        return joined.reshape(1, n, -1, d)

    def recur(self, layer: int, run: Run, hidden: Float[Tensor, "1 n h"]) -> Float[Tensor, "1 n h"]:
        """A recurrent layer over the new token of every caption."""
        return run(hidden.transpose(0, 1), None, self._recurrent[layer]).transpose(0, 1)

    def _by_caption(self, grouped: Float[Tensor, "b kv_heads queries x"]) -> Float[Tensor, "n kv_heads repeats x"]:
        rectangle = grouped.unflatten(2, (self._captions.real.shape[1], -1)).transpose(1, 2).flatten(0, 1)
        return rectangle.index_select(0, self._captions.cells) if self._captions.padded else rectangle

    def _append(self, layer: int, k: Tensor, v: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
        n, kv_heads, d = k.shape
        if layer not in self._own:
            room = k.new_empty(2, n, kv_heads, FIRST_ROOM, d)
            self._own[layer] = (room[0], room[1])
        if self._written == self._own[layer][0].shape[2]:
            keys, values = self._own[layer]
            self._own[layer] = (torch.cat([keys, torch.empty_like(keys)], 2), torch.cat([values, values], 2))
        keys, values = self._own[layer]
        keys[:, :, self._written] = k
        values[:, :, self._written] = v
        end = self._written + 1
        start = 0 if window is None else max(0, end - window)
        return keys[:, :, start:end], values[:, :, start:end]
