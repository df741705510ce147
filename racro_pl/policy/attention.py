"""Attention of captions that share a prompt, for transformers models.

All tokens of a batch stand in one row, without padding: first the prompts, then the captions. Everything but
attention treats tokens one by one and needs to know nothing of this. Attention is replaced through transformers'
own registry: the model is loaded with :data:`NAME`, and a forward that passes ``shared_prefix=...`` attends by that
object; any other forward attends as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from racro_pl.policy.bounded_attention import bounded_attention
from racro_pl.policy.partial_attention import as_autocast
from racro_pl.policy.recurrent import LayerState, LeftRows, Run, install_recurrent, spread
from racro_pl.policy.structure import decoder_of
from racro_pl.types import RacroError

NAME = "racro_shared_prefix"
Attend = Callable[[int, Tensor, Tensor, Tensor, float, int | None], Tensor]
"""(layer, queries, keys, values, scaling, window) -> output; (1, heads, tokens, d) in, (1, tokens, heads, d) out.
A token sees those at most ``window - 1`` tokens before it, or all where there is none."""
ATTENTION = {"full_attention", "sliding_attention"}
RECURRENT = {"linear_attention", "conv"}
"""Kinds of decoder layers, as configs name them, that a packed row can go through."""
_NO_MASK = {
    "dropout", "is_causal", "position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states",
    "logits_to_keep", "output_router_logits", "mm_token_type_ids", "token_type_ids", "return_dict",
}  # fmt: skip
"""Arguments that reach an attention function and do not change which tokens see each other, nor the scores. Dropout
does, but captions have to be scored as they were sampled: it stays out."""


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
    """The entry in transformers' registry: its own SDPA attention, unless the forward brought ``shared_prefix``.

    Raises:
        RacroError: the layer brings an argument that might change its scores, such as a soft cap or sinks.
    """
    if shared_prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    window = options.pop("sliding_window", None)
    unknown = sorted(name for name, given in options.items() if given is not None and name not in _NO_MASK)
    if unknown:
        raise RacroError(
            f"{type(module).__name__} attends with {', '.join(unknown)}, which attention over shared prompts does not "
            "know: scores would differ from the model's own"
        )
    return shared_prefix(module.layer_idx, query, key, value, scaling, window), None


def install(model: Any, recurrent: str | None = None) -> None:
    """Let the language model of ``model`` share prompts; its vision tower keeps the attention it has.

    Args:
        recurrent: how the class of its recurrent layers is called, from its end; None where it has none.

    Raises:
        RacroError: the language model has layers of a kind that a packed row cannot go through.
    """
    known = ATTENTION | RECURRENT if recurrent is not None else ATTENTION
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    if kinds - known:
        raise RacroError(
            f"the language model has layers of the kind {', '.join(sorted(kinds - known))}, which a packed row cannot "
            f"go through; known are {', '.join(sorted(known))}"
        )
    if recurrent is not None:
        install_recurrent(decoder_of(model), recurrent)
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


class _OfGroup(torch.autograd.Function):
    """Each caption's prompt. The backward pass sums over a prompt's captions by a matrix product: index_select's own
    adds them one by one, on CUDA in an order that varies."""

    @staticmethod
    def forward(ctx: Any, prompts: Tensor, group: Tensor) -> Tensor:
        ctx.save_for_backward(group)
        ctx.size = len(prompts)
        return prompts.index_select(0, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (group,) = ctx.saved_tensors
        member = torch.arange(ctx.size, device=group.device)[:, None] == group
        return (member.to(gradient.dtype) @ gradient.flatten(1)).unflatten(1, gradient.shape[1:]), None


class PromptSight:
    """Which tokens of its prompt each prompt token sees: those before it and those of its block, within a window.

    A window bounds the past alone: all of a block that begins within it is seen.

    Args:
        prompts: (b, p) their tokens, padded on the right.
        blocks: (b, p) number of the two-way block that a token is in, -1 in none; None without blocks.
        windowed: blocks count in layers that have a window, and in no others.
    """

    def __init__(self, prompts: Rows, blocks: Int[Tensor, "b p"] | None = None, windowed: bool = False) -> None:
        self._prompts = prompts
        self._blocks = blocks
        self._windowed = windowed
        self._masks: dict[tuple[int, bool, torch.dtype], Tensor] = {}

    def mask(self, window: int | None, dtype: torch.dtype) -> Float[Tensor, "m 1 p p"] | None:
        """What is added to scores, for all prompts alike where m is 1; None where every token sees all before it."""
        size = self._prompts.real.shape[1]
        blocks = self._blocks if window is not None or not self._windowed else None
        if (window is None or window >= size) and blocks is None:
            return None
        bound = size if window is None else min(window, size)
        key = (bound, blocks is None, dtype)
        if key not in self._masks:
            every = torch.ones(1, size, size, dtype=torch.bool, device=self._prompts.real.device)
            seen = every.tril()
            if blocks is not None:
                seen = seen | ((blocks[:, :, None] == blocks[:, None]) & (blocks >= 0)[:, :, None])
            self._masks[key] = _bias(seen & every.triu(1 - bound), dtype)[:, None]
        return self._masks[key]


class GroupAttention:
    """Prompts attend to themselves; captions to their prompt and to themselves. Causal, with gradient.

    Prompts are padded on the right: a causal query never sees what comes after it. Only keys of captions whose
    prompt is padded need a mask there. Windows are counted in tokens, whatever the positions.

    Args:
        prompts: (b, p) tokens of the prompts.
        captions: (n, t) tokens of the captions; t may be 0.
        group: which prompt each caption follows.
        sight: what prompt tokens see of their prompt; all before them where it is not given.
    """

    def __init__(
        self, prompts: Rows, captions: Rows, group: Int[Tensor, " n"], sight: PromptSight | None = None
    ) -> None:
        self.prompts = prompts
        self.captions = captions
        self.group = group
        self.sight = sight or PromptSight(prompts)
        self._longest = prompts.real.shape[1] + captions.real.shape[1]
        self._masks: dict[tuple[int, int | None, torch.dtype], Tensor] = {}

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None = None
    ) -> Tensor:
        sizes = [len(self.prompts.cells), len(self.captions.cells)]
        # Float32 weights give rotated queries and keys in float32 beside bfloat16 values: no fused kernel takes these.
        # Autocast would mend that within the call; which kernel takes it is asked before.
        parts = [x[0].transpose(0, 1).split(sizes) for x in as_autocast(query, key, value)]
        q, k, v = (self.prompts.pad(of_prompts) for of_prompts, _ in parts)
        out = bounded_attention(q, k, v, scaling, self.sight.mask(window, q.dtype))
        flat = self.prompts.unpad(out)
        if sizes[1]:
            own_q, own_k, own_v = (self.captions.pad(of_captions) for _, of_captions in parts)
            # A window that holds the longest caption with its prompt hides nothing.
            bound = window if window is not None and window < self._longest else None
            attended = self._attend_captions(own_q, own_k, own_v, k, v, scaling, bound)
            flat = torch.cat([flat, self.captions.unpad(attended)])
        return flat[None]

    @cached_property
    def _left(self) -> LeftRows:
        return LeftRows(self.prompts.real)

    def recur(self, layer: int, run: Run, hidden: Float[Tensor, "1 tokens h"]) -> Float[Tensor, "1 tokens h"]:
        """A recurrent layer over prompts, and over captions from their prompts' states on."""
        of_prompts, of_captions = hidden[0].split([len(self.prompts.cells), len(self.captions.cells)])
        state = LayerState()
        flat = self._left.run(run, of_prompts, state)
        if len(of_captions):
            cells = self.captions.cells
            out = run(spread(of_captions, cells, self.captions.real.shape), None, state.select(self.group))
            flat = torch.cat([flat, out.flatten(0, 1).index_select(0, cells)])
        return flat[None]

    def _attend_captions(
        self, q: Tensor, k: Tensor, v: Tensor, prompt_k: Tensor, prompt_v: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        k = torch.cat([_OfGroup.apply(prompt_k, self.group), k], dim=2)
        v = torch.cat([_OfGroup.apply(prompt_v, self.group), v], dim=2)
        # Query heads that share a key head become more queries: keys and values need not be repeated.
        n, heads, t, d = q.shape
        folded = q.reshape(n, k.shape[1], -1, d)
        mask = self._caption_mask(heads // k.shape[1], window, q.dtype)
        out = bounded_attention(folded, k, v, scaling, mask)
        return out.reshape(n, heads, t, d)

    def _caption_mask(self, repeats: int, window: int | None, dtype: torch.dtype) -> Float[Tensor, "m 1 queries keys"]:
        """0 where a caption token may look, -inf elsewhere; one for all captions when their prompts are alike."""

        def build() -> Tensor:
            t, p = self.captions.real.shape[1], self.prompts.real.shape[1]
            prompt = self.prompts.real[self.group] if self.prompts.padded else self.prompts.real[:1]
            own = torch.ones(t, t, dtype=torch.bool, device=prompt.device).tril()
            shape = (len(prompt), t, -1)
            before = prompt[:, None].expand(shape)
            if window is not None:
                own = own.triu(1 - window)
                place = torch.arange(p + t, device=prompt.device)
                last = prompt.sum(dim=1)[:, None] + place[:t]
                before = before & (last[:, :, None] - place[:p] < window)
            return _bias(torch.cat([before, own[None].expand(shape)], dim=2), dtype).repeat(1, repeats, 1)[:, None]

        key = (repeats, window, dtype)
        if key not in self._masks:  # layers that look alike share one
            self._masks[key] = build()
        return self._masks[key]


def _bias(seen: Bool[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))
