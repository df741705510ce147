"""Attention of captions that share a prompt, for transformers models.

All tokens of a batch stand in one row, without padding: first the prompts, then the captions. Everything but
attention treats tokens one by one and needs to know nothing of this. Attention is replaced through transformers'
own registry: the model is loaded with :data:`NAME`, and a forward that passes ``shared_prefix=...`` attends by that
object; any other forward attends as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from racro_pl.policy.bounded_attention import bounded_attention
from racro_pl.types import RacroError

NAME = "racro_shared_prefix"
Attend = Callable[[int, Tensor, Tensor, Tensor, float], Tensor]
"""(layer, queries, keys, values, scaling) -> output; (1, heads, tokens, d) in, (1, tokens, heads, d) out."""


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    shared_prefix: Attend | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The entry in transformers' registry: its own SDPA attention, unless the forward brought ``shared_prefix``."""
    if shared_prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    return shared_prefix(module.layer_idx, query, key, value, scaling), None


def install(model: Any) -> None:
    """Let the language model of ``model`` share prompts; its vision tower keeps the attention it has.

    Raises:
        RacroError: the model attends within a sliding window, which captions packed in one row do not have.
    """
    if set(getattr(model.config.text_config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        raise RacroError(
            "policy.path: the language model has sliding-window layers, which are not supported; "
            "set use_sliding_window to false in its config.json (as Qwen ships it)"
        )
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation({"text_config": NAME})


class Rows:
    """Ragged rows that follow one another in a flat sequence, and as a rectangle padded on the right.

    Args:
        real: True for tokens, False for padding after them.
    """

    def __init__(self, real: Bool[Tensor, "r l"]) -> None:
        self.real = real
        self.cells = real.flatten().nonzero()[:, 0]
        self.padded = len(self.cells) < real.numel()
        self.tokens = torch.zeros(real.numel(), dtype=torch.long, device=real.device)
        self.tokens[self.cells] = torch.arange(len(self.cells), device=real.device)

    def pad(self, flat: Float[Tensor, "tokens h d"]) -> Float[Tensor, "r h l d"]:
        """To the rectangle; padding holds copies of the first token, so that nothing there is infinite."""
        cells = _Pad.apply(flat, self.tokens, self.cells) if self.padded else flat
        return cells.view(*self.real.shape, *flat.shape[1:]).transpose(1, 2)

    def unpad(self, rectangle: Float[Tensor, "r h l d"]) -> Float[Tensor, "tokens h d"]:
        """Back to the flat sequence; what stood in the padding is dropped."""
        cells = rectangle.transpose(1, 2).flatten(0, 1)
        return _Unpad.apply(cells, self.cells) if self.padded else cells


class _Pad(torch.autograd.Function):
    """Gather whose backward gathers too: every token has one cell that counts (index_select would add up slowly)."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, tokens: Tensor, cells: Tensor) -> Tensor:
        ctx.save_for_backward(cells)
        return flat.index_select(0, tokens)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.index_select(0, ctx.saved_tensors[0]), None, None


class _Unpad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rectangle: Tensor, cells: Tensor) -> Tensor:
        ctx.save_for_backward(cells)
        ctx.size = len(rectangle)
        return rectangle.index_select(0, cells)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        out = gradient.new_zeros(ctx.size, *gradient.shape[1:])
        return out.index_copy_(0, ctx.saved_tensors[0], gradient), None


class GroupAttention:
    """Prompts attend to themselves; captions to their prompt and to themselves. Causal, with gradient.

    Prompts are padded on the right: a causal query never sees what comes after it. Only keys of captions whose
    prompt is padded need a mask there.

    Args:
        prompts: (b, p) tokens of the prompts.
        captions: (n, t) tokens of the captions; t may be 0.
        group: which prompt each caption follows.
    """

    def __init__(self, prompts: Rows, captions: Rows, group: Int[Tensor, " n"]) -> None:
        self.prompts = prompts
        self.captions = captions
        self.group = group
        self._mask: Tensor | None = None

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        sizes = [len(self.prompts.cells), len(self.captions.cells)]
        parts = [x[0].transpose(0, 1).split(sizes) for x in (query, key, value)]
        q, k, v = (self.prompts.pad(of_prompts) for of_prompts, _ in parts)
        out = bounded_attention(q, k, v, scaling)
        flat = self.prompts.unpad(out)
        if sizes[1]:
            own_q, own_k, own_v = (self.captions.pad(of_captions) for _, of_captions in parts)
            attended = self._attend_captions(own_q, own_k, own_v, k, v, scaling)
            flat = torch.cat([flat, self.captions.unpad(attended)])
        return flat[None]

    def _attend_captions(
        self, q: Tensor, k: Tensor, v: Tensor, prompt_k: Tensor, prompt_v: Tensor, scaling: float
    ) -> Tensor:
        k = torch.cat([prompt_k.index_select(0, self.group), k], dim=2)
        v = torch.cat([prompt_v.index_select(0, self.group), v], dim=2)
        # Query heads that share a key head become more queries: keys and values need not be repeated.
        n, heads, t, d = q.shape
        folded = q.reshape(n, k.shape[1], -1, d)
        mask = self._caption_mask(heads // k.shape[1], q.dtype)
        out = bounded_attention(folded, k, v, scaling, mask)
        return out.reshape(n, heads, t, d)

    def _caption_mask(self, repeats: int, dtype: torch.dtype) -> Float[Tensor, "m 1 queries keys"]:
        """0 where a caption token may look, -inf elsewhere; one for all captions when no prompt is padded."""
        if self._mask is None or self._mask.dtype != dtype:
            t = self.captions.real.shape[1]
            prompt = self.prompts.real[self.group] if self.prompts.padded else self.prompts.real[:1]
            own = torch.ones(t, t, dtype=torch.bool, device=prompt.device).tril()
            shape = (len(prompt), t, -1)
            seen = torch.cat([prompt[:, None].expand(shape), own[None].expand(shape)], dim=2)
            blank = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            self._mask = blank.masked_fill_(~seen, float("-inf")).repeat(1, repeats, 1)[:, None]
        return self._mask
