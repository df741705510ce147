"""The mathematics of the step, as pure functions of tensors and numbers."""

from racro_pl.losses.advantages import group_advantages
from racro_pl.losses.grpo import grpo_loss, k3_divergence
from racro_pl.losses.importance import Importance, truncated_importance
from racro_pl.losses.logprobs import head_logprobs, token_logprobs

__all__ = [
    "Importance",
    "group_advantages",
    "grpo_loss",
    "head_logprobs",
    "k3_divergence",
    "token_logprobs",
    "truncated_importance",
]
