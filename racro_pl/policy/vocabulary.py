"""Tokens of a captioner with a meaning of their own: those that end a caption, and those that it must not write."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from racro_pl.policy.structure import vision_token_ids
from racro_pl.text.answers import THINK_CLOSE, THINK_OPEN

THINK_TAGS = (THINK_OPEN, THINK_CLOSE)


def mask_to_first_end(token_ids: Int[Tensor, "n t"], eos_ids: frozenset[int]) -> Bool[Tensor, "n t"]:
    """True up to and including the first end token of each row; all True in a row that has none.

    >>> mask_to_first_end(torch.tensor([[5, 2, 2], [5, 6, 7]]), frozenset({2})).int()
    tensor([[1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    is_end = torch.isin(token_ids, torch.tensor(sorted(eos_ids), device=token_ids.device))
    ends_before = is_end.cumsum(dim=1) - is_end.long()
    return ends_before == 0


def thought_tags(tokenizer: Any) -> dict[int, str]:
    """The tags around thoughts by their id, where a tokenizer has them as special tokens: decoding would drop them,
    and the thought would pass for a caption."""
    known = tokenizer.added_tokens_decoder
    return {id_: token.content for id_, token in known.items() if token.special and token.content in THINK_TAGS}


def banned_tokens(model: Any, processor: Any, eos_ids: frozenset[int]) -> Bool[Tensor, " vocab"]:
    """Every special token but ends of text and tags of thoughts, and the tokens for images: one entry per logit.

    A sampled image placeholder would make the next forward count more image tokens than image features.

    Args:
        model: the transformers model; its head says how many logits there are (embeddings may have more rows).
        processor: its tokenizer, and what it says of image tokens.
        eos_ids: the tokens that end a caption.
    """
    tokenizer = processor.tokenizer
    special = set(tokenizer.all_special_ids) | {
        index for index, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    banned = torch.zeros(model.get_output_embeddings().weight.shape[0], dtype=torch.bool)
    ids = (special | vision_token_ids(model.config, processor)) - eos_ids - thought_tags(tokenizer).keys()
    banned[[index for index in ids if index < len(banned)]] = True
    return banned
