"""The mathematics of the step, as pure functions of tensors and numbers."""

from racro_pl.losses.advantages import group_advantages, same_rewards
from racro_pl.losses.grpo import grpo_loss
from racro_pl.losses.importance import Importance, truncated_importance
from racro_pl.losses.kl import Estimator, kl_estimate
from racro_pl.losses.logprobs import head_logprobs, token_logprobs
from racro_pl.losses.variants import VARIANTS, LossName, Variant, divisor

__all__ = [
    "VARIANTS",
    "Estimator",
    "Importance",
    "LossName",
    "Variant",
    "divisor",
    "group_advantages",
    "grpo_loss",
    "head_logprobs",
    "kl_estimate",
    "same_rewards",
    "token_logprobs",
    "truncated_importance",
]
