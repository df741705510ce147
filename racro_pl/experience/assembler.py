"""Join groups into micro-batches: first everything that needs no reward, then advantages when rewards are in.

The split in two lets the log-prob passes run while the reasoner is still answering.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from racro_pl.losses import Importance, group_advantages, truncated_importance
from racro_pl.losses.importance import Level
from racro_pl.policy.captioner import Captioner
from racro_pl.types import Experience, Prompt, Rewards, Rollout


@dataclass(frozen=True)
class LogprobBatch:
    """A micro-batch before its rewards are known. Captions of a group stand side by side."""

    prompts: tuple[Prompt, ...]
    group_index: Int[Tensor, " n"]
    token_ids: Int[Tensor, "n t"]
    mask: Bool[Tensor, "n t"]
    old_logprobs: Float[Tensor, "n t"] | None
    ref_logprobs: Float[Tensor, "n t"] | None
    sampler_logprobs: Float[Tensor, "n t"] | None = None
    importance: Importance | None = None
    """Of captions that other weights or another engine sampled."""


def reward_free_logprobs(
    captioner: Captioner,
    rollouts: Sequence[Rollout],
    *,
    old: bool,
    reference: bool,
    temperature: float,
    weigh: bool = False,
    level: Level = "token",
    cap: float = 2.0,
) -> LogprobBatch:
    """Pad the groups' captions to one length and take the log-probs that need no reward.

    Args:
        captioner: the policy, not updated since these rollouts were sampled.
        rollouts: one or more groups.
        old: take ``old_logprobs``; needed when the policy will have changed before these groups are learnt from.
        reference: take ``ref_logprobs``; needed when there is a KL term.
        temperature: as in sampling.
        weigh: take importance weights, policy over sampler, and for them ``old_logprobs``: other weights than these,
            or another engine, have sampled.
        level, cap: of the importance weights.
    """
    prompts = tuple(rollout.prompt for rollout in rollouts)
    sizes = torch.tensor([len(rollout.texts) for rollout in rollouts])
    group_index = torch.repeat_interleave(torch.arange(len(rollouts)), sizes)
    length = max(int(rollout.mask.sum(dim=1).max()) for rollout in rollouts)
    device = captioner.device  # engines may keep what a server sent in main memory
    token_ids = torch.cat([_fit(rollout.token_ids, length, captioner.pad_id) for rollout in rollouts]).to(device)
    mask = torch.cat([_fit(rollout.mask, length, False) for rollout in rollouts]).to(device)
    inputs = (prompts, group_index, token_ids, mask, temperature)
    sampled_by = [rollout.sampler_logprobs for rollout in rollouts]
    told = [_fit(logprobs, length, 0.0) for logprobs in sampled_by if logprobs is not None]
    sampler_logprobs = torch.cat(told).to(device) if len(told) == len(rollouts) else None
    weigh = weigh and sampler_logprobs is not None
    old_logprobs = captioner.frozen_logprobs(*inputs, reference=False) if old or weigh else None
    importance = None
    if weigh and old_logprobs is not None and sampler_logprobs is not None:
        importance = truncated_importance(old_logprobs, sampler_logprobs, mask, level=level, cap=cap)
    return LogprobBatch(
        prompts=prompts,
        group_index=group_index,
        token_ids=token_ids,
        mask=mask,
        old_logprobs=old_logprobs,
        ref_logprobs=captioner.frozen_logprobs(*inputs, reference=True) if reference else None,
        sampler_logprobs=sampler_logprobs,
        importance=importance,
    )


def with_advantages(pending: LogprobBatch, rewards: Sequence[Rewards], divide_by_std: bool = True) -> Experience:
    """Add advantages to a micro-batch; captions without a score are masked out of the loss.

    Args:
        pending: the micro-batch.
        rewards: one per group, in the micro-batch's order.
        divide_by_std: whether advantages are divided by their group's standard deviation.
    """
    device = pending.token_ids.device
    total = torch.tensor([group.total for group in rewards], dtype=torch.float32, device=device)
    scored = torch.tensor([group.scored for group in rewards], dtype=torch.bool, device=device)
    return Experience(
        prompts=pending.prompts,
        group_index=pending.group_index,
        token_ids=pending.token_ids,
        mask=pending.mask & scored.flatten().unsqueeze(1),
        advantages=group_advantages(total, scored, divide_by_std).flatten(),
        old_logprobs=pending.old_logprobs,
        ref_logprobs=pending.ref_logprobs,
        importance=pending.importance.weights if pending.importance is not None else None,
    )


def _fit(tensor: Tensor, length: int, fill: int | float) -> Tensor:
    """Cut or pad the rows on the right to ``length``."""
    if tensor.shape[1] >= length:
        return tensor[:, :length]
    return torch.nn.functional.pad(tensor, (0, length - tensor.shape[1]), value=fill)
