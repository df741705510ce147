"""Group-relative advantages."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

STD_EPSILON = 1e-6
"""Added to the group's standard deviation, as in the reference implementation."""
SAME_REWARD = 1e-6
"""Rewards that differ by no more are the same one, rounded at other places: a mean of fifths depends on the order of
its terms. Real differences are far larger: shares of right votes, or a penalty on them."""


def same_rewards(rewards: Iterable[float]) -> bool:
    """Whether rewards of a group, those of captions with a score, are all the same: then it carries no signal.

    This is the one definition, for the loss, for refilling and for the metrics of a step. True for fewer than two.

    Example:
        >>> same_rewards([(0.2 + 0.4 + 0.6) / 3, (0.6 + 0.4 + 0.2) / 3])
        True
        >>> same_rewards([1.0, 0.9])
        False
    """
    found = list(rewards)
    return not found or max(found) - min(found) <= SAME_REWARD


def group_advantages(
    rewards: Float[Tensor, "b g"], scored: Bool[Tensor, "b g"], divide_by_std: bool = True
) -> Float[Tensor, "b g"]:
    """Rewards relative to their group: ``(r - mean) / (std + 1e-6)``, the std unbiased (n - 1).

    A caption without a score leaves its group's mean and std and gets advantage 0. A group with fewer than two
    scores carries no comparison: all its advantages are 0. (The reference hands a group of one its raw reward;
    here a lone survivor of failed reasoner calls would then push the policy without anything to compare it with.)
    So are those of a group whose rewards are the same (:func:`same_rewards`), to the bit: the mean of equal fractions
    is rounded, and the rounding, divided by a std that is rounding too, would be an advantage of 0.1.

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
    highest = rewards.masked_fill(~scored, float("-inf")).amax(dim=1, keepdim=True)
    lowest = rewards.masked_fill(~scored, float("inf")).amin(dim=1, keepdim=True)
    centred = torch.where(highest - lowest > SAME_REWARD, (rewards - mean) * weight, torch.zeros_like(rewards))
    if not divide_by_std:
        return centred
    std = (centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    return centred / (std + STD_EPSILON)
