"""Attention while captions are written: prompts that are read once, then one new token of every caption at a time."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from racro_pl.policy.attention import PromptSight, Rows
from racro_pl.policy.bounded_attention import bounded_attention
from racro_pl.policy.partial_attention import ALIGNMENT, as_autocast, attend, hiding_bias, join
from racro_pl.policy.recurrent import LayerState, LeftRows, Run

FIRST_ROOM = 64
"""Caption tokens that keys and values are first given room for; doubled when full."""
FIRST_STATIC_ROOM = 1024
"""The same in a graph, which reads all of the room at every token, and is captured again when it is doubled."""


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
        self.forget()

    def forget(self) -> None:
        """What hides keys from this token is made again."""
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
            now = self._real.sum(dim=1, keepdim=True) + self._now()
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
        if window is not None and window >= self._real.shape[1] + self._longest():
            window = None
        q, k, v = (x[0].transpose(0, 1) for x in as_autocast(query, key, value))  # (n, heads, d)
        n, kv_heads, d = k.shape
        own = attend(q.view(n, kv_heads, -1, d), *self._append(layer, k, v, window), scaling, self._own_bias(window))
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

    def _now(self) -> int | Tensor:
        """Tokens that every caption has before the one being written."""
        return self._written

    def _longest(self) -> int:
        """Tokens of a caption with the one being written."""
        return self._written + 1

    def _own_bias(self, window: int | None) -> Tensor | None:
        """What hides a caption's own keys from its new token: those that :meth:`_append` returns are all seen."""
        return None

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


class StaticAttention(GrowingAttention):
    """The same attention by the same operations on the same memory at every token, so that a CUDA graph can replay it.

    Keys and values have room beyond the token being written, and how many are written is a number on the device.

    Args:
        prompt_states, real, group_size: as in :class:`GrowingAttention`.
        longest: the most tokens that a caption gets.
    """

    def __init__(
        self, prompt_states: dict[int, tuple[Tensor, Tensor]], real: Bool[Tensor, "b p"], group_size: int, longest: int
    ) -> None:
        self._limit = -(-longest // ALIGNMENT) * ALIGNMENT
        self._room = min(FIRST_STATIC_ROOM, self._limit)
        self._place = torch.arange(self._room, device=real.device)
        self._biases: dict[int | None, Tensor] = {}
        super().__init__(prompt_states, real, group_size)
        self._count = torch.zeros(1, dtype=torch.long, device=real.device)

    def make_room(self, tokens: int) -> bool:
        """Have room for so many tokens of a caption; whether that took other memory, so that a graph is of no use."""
        room = self._room
        while room < min(tokens, self._limit):
            room = min(2 * room, self._limit)
        if room == self._room:
            return False
        for layer, states in self._own.items():
            keys, values = (torch.nn.functional.pad(part, (0, 0, 0, room - self._room)) for part in states)
            self._own[layer] = (keys, values)
        self._room, self._place = room, torch.arange(room, device=self._place.device)
        return True

    def advance(self) -> None:
        self._count += 1
        self.forget()

    def forget(self) -> None:
        super().forget()
        self._biases.clear()

    def _now(self) -> Tensor:
        return self._count

    def _longest(self) -> int:
        return self._room

    def _own_bias(self, window: int | None) -> Tensor:
        if window not in self._biases:
            hidden = self._place > self._count
            if window is not None:
                hidden = hidden | (self._place <= self._count - window)
            self._biases[window] = hiding_bias(hidden[None], self._dtype)
        return self._biases[window]

    def _append(self, layer: int, k: Tensor, v: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
        if layer not in self._own:
            n, kv_heads, d = k.shape
            room = k.new_zeros(2, n, kv_heads, self._room, d)  # what is hidden must still be finite
            self._own[layer] = (room[0], room[1])
        for states, new in zip(self._own[layer], (k, v), strict=True):
            states.index_copy_(2, self._count, new[:, :, None])
        return self._own[layer]
