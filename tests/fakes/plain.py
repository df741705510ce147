"""The plain way, as a reference: every caption behind a prompt of its own, stock forward and generate, whole logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig

from racro_pl.losses import token_logprobs
from racro_pl.policy.captioner import Captioner
from racro_pl.types import Prompt


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
    seeing = [prompt for prompt in prompts if prompt.pixel_values is not None]
    if seeing:
        batch["pixel_values"] = torch.cat([prompt.pixel_values for prompt in seeing])
        batch["image_grid_thw"] = torch.cat([prompt.image_grid_thw for prompt in seeing])
    return batch


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
    model = captioner.reference if reference else captioner.model
    batch = pad_prompts([prompts[i] for i in prompt_index.tolist()], captioner.pad_id)
    batch["input_ids"] = torch.cat([batch["input_ids"], token_ids], dim=1)
    batch["attention_mask"] = torch.cat([batch["attention_mask"], mask.long()], dim=1)
    batch["mm_token_type_ids"] = torch.cat([batch["mm_token_type_ids"], torch.zeros_like(token_ids)], dim=1)
    logits = model(**batch, use_cache=False, logits_to_keep=token_ids.shape[1] + 1).logits[:, :-1]
    return token_logprobs(logits, token_ids, captioner.banned, temperature)


@torch.no_grad()
def plain_greedy(captioner: Captioner, prompts: Sequence[Prompt], group_size: int, max_new_tokens: int) -> Tensor:
    """Tokens (n, t), the prompt prefilled once per caption."""
    captioner.eval()
    repeated = [prompt for prompt in prompts for _ in range(group_size)]
    batch = pad_prompts(repeated, captioner.pad_id)
    config = GenerationConfig(
        eos_token_id=sorted(captioner.eos_ids), pad_token_id=captioner.pad_id, do_sample=False,
        suppress_tokens=captioner.banned.nonzero()[:, 0].tolist(), max_new_tokens=max_new_tokens,
    )  # fmt: skip
    sequences = captioner.model.generate(**batch, generation_config=config)
    captioner.train()
    return sequences[:, batch["input_ids"].shape[1] :]
