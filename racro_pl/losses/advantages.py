"""Group-relative advantages."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

STD_EPSILON = 1e-6
"""Added to the group's standard deviation, as in the reference implementation."""


def group_advantages(
    rewards: Float[Tensor, "b g"], scored: Bool[Tensor, "b g"], divide_by_std: bool = True
) -> Float[Tensor, "b g"]:
    """Rewards relative to their group: ``(r - mean) / (std + 1e-6)``, the std unbiased (n - 1).

    A caption without a score leaves its group's mean and std and gets advantage 0. A group with fewer than two
    scores carries no comparison: all its advantages are 0. (The reference hands a group of one its raw reward;
    here a lone survivor of failed reasoner calls would then push the policy without anything to compare it with.)

    Args:
        rewards: one per caption; ignored where ``scored`` is False.
        scored: whether the reasoner's verdict on the caption is known.
        divide_by_std: False leaves them ``r - mean``, as Dr. GRPO has them: dividing makes questions that are almost
            always or almost never answered weigh as much as those in between.

    Examples:
        >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.ones(1, 4, dtype=torch.bool)).round(decimals=4)
        tensor([[ 1.5000, -0.5000, -0.5000, -0.5000]])
    """
    weight = scored.to(rewards.dtype)
    count = weight.sum(dim=1, keepdim=True)
    rewards = torch.where(scored, rewards, torch.zeros_like(rewards))
    mean = rewards.sum(dim=1, keepdim=True) / count.clamp(min=1)
    centred = torch.where(count >= 2, (rewards - mean) * weight, torch.zeros_like(rewards))
    if not divide_by_std:
        return centred
    std = (centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    return centred / (std + STD_EPSILON)
