"""Tokens of a captioner with a meaning of their own: those that end a caption, and those that it must not write."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from racro_pl.policy.families import Family
from racro_pl.pretrained.weights import end_token_ids


def mask_to_first_end(token_ids: Int[Tensor, "n t"], eos_ids: frozenset[int]) -> Bool[Tensor, "n t"]:
    """True up to and including the first end token of each row; all True in a row that has none.

    >>> mask_to_first_end(torch.tensor([[5, 2, 2], [5, 6, 7]]), frozenset({2})).int()
    tensor([[1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    is_end = torch.isin(token_ids, torch.tensor(sorted(eos_ids), device=token_ids.device))
    ends_before = is_end.cumsum(dim=1) - is_end.long()
    return ends_before == 0


def end_tokens(model: Any, tokenizer: Any) -> tuple[frozenset[int], int]:
    """End-of-text ids (those of the generation config and the tokenizer's own) and the padding id."""
    eos_ids = end_token_ids(model.generation_config, tokenizer, "the captioner")
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(eos_ids)
    return eos_ids, pad_id


def banned_tokens(config: Any, tokenizer: Any, family: Family, eos_ids: frozenset[int]) -> set[int]:
    """Every special token but the ends of text, and the family's vision tokens.

    A sampled image placeholder would make the next forward count more image tokens than image features.
    """
    special = set(tokenizer.all_special_ids) | {
        index for index, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    vision = {getattr(config, name) for name in family.vision_token_fields}
    return (special | vision) - eos_ids
