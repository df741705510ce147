"""Linear attention and short convolutions in a packed row of prompts and captions.

Such a layer mixes tokens through a running state, so it cannot treat a packed row as one sequence. Its forward is
wrapped: prompts go through it as rows of a rectangle, padded on the left (after a text, padding would let the state
decay), and each caption starts from its prompt's state, with gradient into the prompt. The state lives within one
call of the layer, so gradient checkpointing computes it again like everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

CACHES = ("cache_params", "past_key_values")
"""What transformers calls the cache that such a layer takes."""
_HANDED = "_racro_shared_prefix"


class LayerState:
    """A layer's convolution and recurrent state, where the layer expects transformers' cache; nothing is overwritten.

    (transformers' own writes states in place, which the backward pass refuses.)
    """

    record_past = False

    def __init__(self, convolution: Tensor | None = None, recurrent: Tensor | None = None) -> None:
        self.conv_states = {0: convolution}
        self.recurrent_states = {0: recurrent}

    @property
    def layers(self) -> LayerState:
        """The layer looks itself up in its cache."""
        return self

    def __getitem__(self, layer: int) -> LayerState:
        return self

    def has_previous_state(self, *_: Any, **__: Any) -> bool:
        """Whether anything came before."""
        return self.conv_states[0] is not None

    def update_conv_state(self, columns: Tensor, *_: Any, conv_kernel_size: int, **__: Any) -> Tensor:
        """All columns that the convolution has to see; the last ones are kept."""
        before = self.conv_states[0]
        seen = columns if before is None else torch.cat([before, columns], dim=-1)
        seen = F.pad(seen, (max(0, conv_kernel_size - seen.shape[-1]), 0))
        self.conv_states[0] = seen[..., -conv_kernel_size:]
        return seen

    def update_recurrent_state(self, state: Tensor, *_: Any, **__: Any) -> Tensor:
        """Keep the state."""
        self.recurrent_states[0] = state
        return state

    def select(self, rows: Int[Tensor, " n"]) -> LayerState:
        """The state of some rows, each as often as it is named."""
        states = (self.conv_states[0], self.recurrent_states[0])
        return LayerState(*(None if state is None else state.index_select(0, rows) for state in states))


Run = Callable[[Tensor, Tensor | None, LayerState], Tensor]
"""(rows of hidden states, 1 on their tokens or None, state) -> rows; the state is moved on."""


class LeftRows:
    """Ragged rows that follow one another, as a rectangle padded on the left.

    Args:
        real: (r, l) True for the tokens, which stand at the left there.
    """

    def __init__(self, real: Bool[Tensor, "r l"]) -> None:
        lengths = real.sum(dim=1, keepdim=True)
        self._real = torch.arange(real.shape[1], device=real.device) >= real.shape[1] - lengths
        self._cells = self._real.flatten().nonzero()[:, 0]
        self._padded = len(self._cells) < real.numel()

    def run(self, run: Run, flat: Float[Tensor, "tokens h"], state: LayerState) -> Float[Tensor, "tokens h"]:
        """One pass over all rows."""
        mask = self._real.to(flat.dtype) if self._padded else None
        out = run(spread(flat, self._cells, self._real.shape), mask, state)
        return out.flatten(0, 1).index_select(0, self._cells)


def spread(flat: Float[Tensor, "tokens h"], cells: Int[Tensor, " tokens"], shape: torch.Size) -> Float[Tensor, "r l h"]:
    """A flat sequence in cells of a rectangle, zeros elsewhere."""
    blank = flat.new_zeros(shape.numel(), flat.shape[1])
    return blank.index_copy(0, cells, flat).view(*shape, -1)


def install_recurrent(decoder: Any, class_end: str) -> None:
    """Let the recurrent layers of a decoder follow a ``shared_prefix`` that is passed to its forward.

    Args:
        decoder: has ``layers``.
        class_end: how the class of the recurrent part of a layer is called, from its end.
    """
    for layer in decoder.layers:
        for part in layer.modules():
            if type(part).__name__.endswith(class_end) and "forward" not in vars(part):
                part.forward = MethodType(_forked_forward, part)
                # Some of these layers are given no keyword arguments: the layer around them hands it over, again when
                # gradient checkpointing runs it again.
                layer.register_forward_pre_hook(partial(_hand_over, part), with_kwargs=True)


def _hand_over(part: nn.Module, layer: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> None:
    setattr(part, _HANDED, options.get("shared_prefix"))


def _forked_forward(part: Any, hidden_states: Tensor, **options: Any) -> Tensor:
    shared = getattr(part, _HANDED, None)
    options.pop("shared_prefix", None)
    stock = type(part).forward
    if shared is None:
        return stock(part, hidden_states, **options)
    cache = next(name for name in CACHES if name in options)
    options = {name: value for name, value in options.items() if name not in (cache, "attention_mask", "position_ids")}

    def run(rows: Tensor, mask: Tensor | None, state: LayerState) -> Tensor:
        return stock(part, rows, attention_mask=mask, **{cache: state}, **options)

    return shared.recur(part.layer_idx, run, hidden_states)
