"""Does the shared-prefix path compute what the model itself computes? One comparison on the weights at hand.

The tests hold this for small models of every described family. A new version of transformers, or a checkpoint whose
config switches on what its family's description does not know, would show here and not in a run's curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from racro_pl.losses import token_logprobs
from racro_pl.policy.captioner import Captioner
from racro_pl.types import Prompt, RacroError

CAPTIONS = ("The picture shows", "A", "It shows a red circle")
LIMITS = {torch.float32: 1e-3, torch.bfloat16: 0.05}
"""Largest mean difference in nats that rounding explains. On small models right paths differ by 1e-6 in float32 and
0.004 in bfloat16. Faults make 0.005 to 0.2 (image blocks left out) and more than 1 (windows or states): in bfloat16
the small ones among them go unseen."""


@torch.no_grad()
def check_packing(captioner: Captioner, prompts: Sequence[Prompt]) -> float:
    """Compare log-probs of three captions, packed after their prompts, with those of one stock forward each.

    Args:
        captioner: whole on its device, in float32 or bfloat16.
        prompts: one or two, with images.

    Returns:
        The mean difference in nats.

    Raises:
        RacroError: it is more than rounding explains.
    """
    tokenizer = captioner.encoder.tokenizer
    rows = [tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0] for text in CAPTIONS]
    group = torch.arange(len(rows)) % len(prompts)
    token_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.arange(token_ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    found = captioner.frozen_logprobs(prompts, group, token_ids, mask, reference=False)
    was_training = captioner.training
    captioner.eval()
    expected = [_stock(captioner, prompts[i], row) for i, row in zip(group.tolist(), rows, strict=True)]
    captioner.train(was_training)
    difference = float((found[mask.to(found.device)] - torch.cat(expected)).abs().mean())
    limit = LIMITS[captioner.parts()[0].dtype]
    # Written so that NaN fails too.
    if not difference <= limit:
        raise RacroError(
            f"log-probs on the shared-prefix path differ from the model's own by {difference:.2g} nats a token; "
            f"rounding explains {limit:.2g}. The model does something that the description of "
            f"{captioner.family.model_type!r} does not know: is transformers the version that pyproject.toml asks for?"
        )
    return difference


def _stock(captioner: Captioner, prompt: Prompt, caption: Tensor) -> Tensor:
    model: Any = captioner.parts()[0]
    device = captioner.device
    ids = torch.cat([prompt.input_ids, caption])[None].to(device)
    types = torch.cat([prompt.mm_token_type_ids, torch.zeros_like(caption)])[None].to(device)
    given = {"mm_token_type_ids": types, "token_type_ids": types, **prompt.vision}
    taken = signature(model.forward).parameters
    inputs = {name: tensor.to(device) for name, tensor in given.items() if name in taken}
    out = model(
        input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=len(caption) + 1, **inputs
    )
    return token_logprobs(out.logits[0, -len(caption) - 1 : -1], caption.to(device), captioner.banned)[0]
