"""The plain way, as a reference: every caption after a prompt of its own, a stock forward, whole logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from racro_pl.losses import token_logprobs
from racro_pl.policy.captioner import Captioner
from racro_pl.types import Prompt
from tests.helpers.device import device, there


def pad_prompts(prompts: Sequence[Prompt], pad_id: int) -> dict[str, Tensor]:
    """Prompts of different lengths as one batch, padded on the left; images repeated with their prompts."""
    length = max(len(prompt.input_ids) for prompt in prompts)
    batch = {
        "input_ids": torch.full((len(prompts), length), pad_id),
        "mm_token_type_ids": torch.zeros(len(prompts), length, dtype=torch.long),
        "attention_mask": torch.zeros(len(prompts), length, dtype=torch.long),
    }
    for row, prompt in enumerate(prompts):
        start = length - len(prompt.input_ids)
        batch["input_ids"][row, start:] = prompt.input_ids
        batch["mm_token_type_ids"][row, start:] = prompt.mm_token_type_ids
        batch["attention_mask"][row, start:] = 1
    seeing = [prompt for prompt in prompts if prompt.vision]
    if seeing:
        for name in seeing[0].vision:
            batch[name] = torch.cat([prompt.vision[name] for prompt in seeing])
    return {name: tensor.to(device()) for name, tensor in batch.items()}


def plain_logits(
    captioner: Captioner,
    prompts: Sequence[Prompt],
    prompt_index: Tensor,
    token_ids: Tensor,
    mask: Tensor,
    reference: bool = False,
) -> Tensor:
    """Logits that predict each caption token (n, t, vocabulary); anything on padding."""
    model = captioner.reference if reference else captioner.model
    token_ids, mask = there(token_ids, mask)
    batch = pad_prompts([prompts[i] for i in prompt_index.tolist()], captioner.pad_id)
    batch["input_ids"] = torch.cat([batch["input_ids"], token_ids], dim=1)
    batch["attention_mask"] = torch.cat([batch["attention_mask"], mask.long()], dim=1)
    batch["mm_token_type_ids"] = torch.cat([batch["mm_token_type_ids"], torch.zeros_like(token_ids)], dim=1)
    return model(**batch, use_cache=False, logits_to_keep=token_ids.shape[1] + 1).logits[:, :-1]


def plain_logprobs(
    captioner: Captioner,
    prompts: Sequence[Prompt],
    prompt_index: Tensor,
    token_ids: Tensor,
    mask: Tensor,
    temperature: float = 1.0,
    reference: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies (n, t); anything on padding."""
    logits = plain_logits(captioner, prompts, prompt_index, token_ids, mask, reference)
    return token_logprobs(logits, *there(token_ids), captioner.banned, temperature)


@torch.no_grad()
def plain_shortfall(
    captioner: Captioner, prompts: Sequence[Prompt], prompt_index: Tensor, token_ids: Tensor, mask: Tensor
) -> Tensor:
    """By how much each caption token's logit is below the best allowed one (n, t), relative to the largest of all.

    0 everywhere for greedy captions, but for rounding: two logits may be closer than the order of sums decides, and
    then either token is right. 0 on padding.
    """
    captioner.eval()
    logits = plain_logits(captioner, prompts, prompt_index, token_ids, mask).float()
    captioner.train()
    best = logits.masked_fill(captioner.banned, float("-inf")).max(dim=-1).values
    token_ids, mask = there(token_ids, mask)
    chosen = logits.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)
    return ((best - chosen) * mask) / logits.abs().max()
