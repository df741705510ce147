"""From captions and rewards to what the loss needs."""

from racro_pl.experience.assembler import LogprobBatch, reward_free_logprobs, with_advantages

__all__ = ["LogprobBatch", "reward_free_logprobs", "with_advantages"]
