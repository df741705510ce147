"""Groups of captions after their prompts, packed so that every token is forwarded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from racro_pl.policy.attention import Attend, GroupAttention, PromptSight, Rows
from racro_pl.policy.two_way import TwoWay, sight_of
from racro_pl.types import Prompt


@dataclass(frozen=True)
class Packed:
    """One row of tokens, ``[prompt 1 | prompt 2 | ... | caption 1 | caption 2 | ...]``, and what to read from it.

    A caption's last token predicts nothing, so it is not in the row.
    """

    input_ids: Int[Tensor, "1 tokens"]
    position_ids: Int[Tensor, "*axes 1 tokens"]
    """As if each caption stood alone after its prompt; three axes in families with 3-D positions, else none."""
    attention: GroupAttention
    predictors: Int[Tensor, " m"]
    """Place in the row that predicts each caption token."""
    targets: Int[Tensor, " m"]
    """The caption tokens, caption after caption."""
    mask: Bool[Tensor, "n t"]

    def spread(self, values: Float[Tensor, " m"]) -> Float[Tensor, "n t"]:
        """One value per caption token, in the captions' own shape; 0 on padding."""
        return torch.zeros(self.mask.shape, dtype=values.dtype, device=values.device).masked_scatter(self.mask, values)


@dataclass(frozen=True)
class PackedPrompts:
    """Prompts alone, one after the other."""

    input_ids: Int[Tensor, "1 tokens"]
    position_ids: Int[Tensor, "*axes 1 tokens"]
    rows: Rows
    sight: PromptSight
    last: Int[Tensor, " b"]
    """Place of each prompt's last token."""
    next_position: Int[Tensor, " b"]
    """Position of the first token after each prompt. Images take up fewer positions than tokens."""


def drop_idle(
    prompts: Sequence[Prompt], group: Int[Tensor, " n"], mask: Bool[Tensor, "n t"]
) -> tuple[list[Prompt], Int[Tensor, " n"]]:
    """Leave out prompts whose captions have no token, and count ``group`` again (anything where there is no token)."""
    used = group[mask.any(dim=1).to(group.device)].unique()
    place = torch.searchsorted(used, group).clamp(max=len(used) - 1)
    return [prompts[i] for i in used.tolist()], place


def pack_prompts(
    model: Any, prompts: Sequence[Prompt], device: torch.device, two_way: TwoWay | None = None
) -> PackedPrompts:
    """Prompts without padding, each with its own positions.

    Args:
        model: the inner transformers model; where positions are 3-D it knows them (``get_rope_index``).
        prompts: at least one.
        two_way: which image tokens see each other both ways.
    """
    lengths = torch.tensor([len(prompt.input_ids) for prompt in prompts])
    positions = [_positions(model, prompt) for prompt in prompts]
    rows = Rows((torch.arange(int(lengths.max())) < lengths[:, None]).to(device))
    return PackedPrompts(
        input_ids=torch.cat([prompt.input_ids for prompt in prompts])[None].to(device),
        position_ids=torch.cat(positions, dim=-1).to(device),
        rows=rows,
        sight=sight_of(rows, prompts, two_way),
        last=(lengths.cumsum(0) - 1).to(device),
        next_position=torch.stack([position.max() + 1 for position in positions]).to(device),
    )


def pack_groups(
    model: Any,
    prompts: Sequence[Prompt],
    group: Int[Tensor, " n"],
    token_ids: Int[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    device: torch.device,
    two_way: TwoWay | None = None,
) -> Packed:
    """Prompts and their captions in one row.

    Args:
        model, prompts, device, two_way: as in :func:`pack_prompts`.
        group: which prompt each caption follows.
        token_ids, mask: captions, padded on the right.
    """
    head = pack_prompts(model, prompts, device, two_way)
    group, token_ids, mask = group.to(device), token_ids.to(device), mask.to(device)
    forwarded = mask[:, 1:]  # one fewer than there are tokens: the last one predicts nothing
    longest = int(forwarded.sum(dim=1).max()) if len(mask) else 0
    captions = Rows(forwarded[:, :longest])
    positions = head.next_position[group, None] + torch.arange(longest, device=device)
    in_row = head.input_ids.shape[1] + captions.tokens.view_as(captions.real)
    predictors = torch.cat([head.last[group, None], in_row], dim=1)
    written = token_ids[:, :longest][captions.real]
    own = positions[captions.real].expand(*head.position_ids.shape[:-1], -1)
    return Packed(
        input_ids=torch.cat([head.input_ids, written[None]], dim=1),
        position_ids=torch.cat([head.position_ids, own], dim=-1),
        attention=GroupAttention(head.rows, captions, group, head.sight),
        predictors=predictors[mask[:, : longest + 1]],
        targets=token_ids[mask],
        mask=mask,
    )


def read_row(
    model: Any,
    input_ids: Int[Tensor, "1 tokens"],
    position_ids: Int[Tensor, "*axes 1 tokens"],
    attention: Attend,
    images: Mapping[str, Any] | None = None,
) -> Float[Tensor, "tokens hidden"]:
    """The last hidden states of a packed row.

    Args:
        model: a transformers image-text-to-text model that :func:`racro_pl.policy.attention.install` has seen.
        attention: how its tokens see each other.
        images: what stands in the places of image tokens, as ``mm_encoder_outputs``.
    """
    # Wanted by some in train mode; the images of the row are in ``images``, and what they see in ``attention``.
    named = "mm_token_type_ids" in _arguments(type(model.model).forward)
    types = {"mm_token_type_ids": torch.zeros_like(input_ids)} if named else {}
    return model.model(
        input_ids=input_ids,
        position_ids=position_ids,
        mm_encoder_outputs=images,
        shared_prefix=attention,
        # Never looked at. Without a mask transformers takes the row for packed sequences where positions begin
        # again, and builds a mask of tokens x tokens.
        attention_mask=torch.zeros(1, 1, 1, 1, device=input_ids.device),
        use_cache=False,
        **types,
    ).last_hidden_state[0]


def _positions(model: Any, prompt: Prompt) -> Int[Tensor, "*axes 1 p"]:
    index = getattr(model, "get_rope_index", None)
    flat = torch.arange(len(prompt.input_ids))[None]
    if index is None:
        return flat
    if not prompt.vision:
        return flat.expand(3, 1, -1)
    known = {"input_ids": prompt.input_ids[None], "mm_token_type_ids": prompt.mm_token_type_ids[None], **prompt.vision}
    taken = _arguments(type(model).get_rope_index)
    positions, _ = index(**{name: tensor for name, tensor in known.items() if name in taken})
    return positions


@cache  # asked at every token
def _arguments(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(signature(function).parameters)
