"""What transformers itself computes for a family: images and prompts repeated for every caption, stock forward."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor

from racro_pl.images import open_image
from racro_pl.losses import token_logprobs
from racro_pl.policy.captioner import Captioner
from racro_pl.text.captioner_prompt import captioner_messages
from racro_pl.types import Question
from tests.helpers.device import there

TYPES = ("mm_token_type_ids", "token_type_ids")


def stock_inputs(captioner: Captioner, question: Question, copies: int) -> dict[str, Tensor]:
    """The processor's own tensors for a question asked several times."""
    processor = captioner.encoder.processor
    messages = captioner_messages(question.text, len(question.images))
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    begun = bool(processor.tokenizer.bos_token) and text.startswith(processor.tokenizer.bos_token)
    images = [open_image(ref) for ref in question.images]
    found = processor(
        text=[text] * copies, images=[images] * copies if images else None, return_mm_token_type_ids=True,
        return_tensors="pt", **({"add_special_tokens": False} if begun else {}),
    )  # fmt: skip
    return {name: tensor.to(captioner.device) for name, tensor in found.items()}


def stock_logprobs(captioner: Captioner, question: Question, token_ids: Tensor, mask: Tensor) -> Tensor:
    """Log-probs of a question's captions (n, t), from pixels; anything on padding."""
    inputs: dict[str, Any] = stock_inputs(captioner, question, len(token_ids))
    token_ids, mask = there(token_ids, mask)
    length = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], token_ids], dim=1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], mask.long()], dim=1)
    for name in TYPES:
        if name in inputs:
            inputs[name] = torch.cat([inputs[name], torch.zeros_like(token_ids)], dim=1)
    logits = captioner.model(**inputs, use_cache=False).logits[:, length - 1 : -1]
    return token_logprobs(logits, token_ids, captioner.banned)[0]


def stock_greedy(captioner: Captioner, question: Question, max_new_tokens: int) -> list[int]:
    """The tokens that ``generate`` writes, up to its end token."""
    inputs = stock_inputs(captioner, question, 1)
    model = captioner.parts()[0]
    if "mm_token_type_ids" not in signature(model.forward).parameters:
        inputs.pop("mm_token_type_ids", None)
    captioner.eval()
    written = captioner.model.generate(
        **inputs, do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=sorted(captioner.eos_ids),
        pad_token_id=captioner.pad_id, suppress_tokens=captioner.banned.nonzero()[:, 0].tolist(),
    )  # fmt: skip
    captioner.train()
    return written[0, inputs["input_ids"].shape[1] :].tolist()
