"""Image tokens that see each other both ways, as some families read them; everything else is causal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from racro_pl.policy.attention import PromptSight, Rows
from racro_pl.policy.families.base import Family, TwoWay
from racro_pl.types import Prompt

IN_WINDOWS: TwoWay = "image, in windows, if the config says so"


def two_way_of(family: Family, config: Any) -> TwoWay | None:
    """What holds for one model of a family."""
    if family.two_way == IN_WINDOWS and config.get_text_config().use_bidirectional_attention != "vision":
        return None
    return family.two_way


def sight_of(rows: Rows, prompts: Sequence[Prompt], two_way: TwoWay | None) -> PromptSight:
    """What the tokens of prompts see of their prompts."""
    if two_way is None or not any(prompt.vision for prompt in prompts):
        return PromptSight(rows)
    size = rows.real.shape[1]
    found = [_blocks(prompt.mm_token_type_ids == 1, two_way) for prompt in prompts]
    blocks = torch.stack([F.pad(block, (0, size - len(block)), value=-1) for block in found])
    return PromptSight(rows, blocks.to(rows.real.device), windowed=two_way == IN_WINDOWS)


def _blocks(image: Tensor, two_way: TwoWay) -> Int[Tensor, " p"]:
    if two_way == "all images":
        return torch.where(image, 0, -1)
    begins = image & ~F.pad(image, (1, 0))[:-1]
    return torch.where(image, begins.long().cumsum(0) - 1, -1)
