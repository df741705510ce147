r"""The small reasoners: read a caption, at inference a tentative answer too, and answer in a box.

Each repeats the question's key and then looks its value up in the caption: ``color of circle \boxed{ red}``. First it
learns to look keys up at all, on long lists of repeated facts; then to answer the real prompts. With the caption alone
it says ``\boxed{ unknown}`` whenever no well-formed sentence states the asked fact; with a tentative answer beside it,
it then repeats what that has in its box. Captions that try to fool it (values of another attribute, other figures,
torn, bare or contradicting sentences) are most of what it sees.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Lfm2Config, PreTrainedTokenizerBase, Qwen2Config

from figure_models.reasoner_rows import Mixture, lookup_batch, prompt_batch


@dataclass(frozen=True)
class Recipe:
    """One reasoner: its architecture, what it sees, and for how many steps."""

    new_model: Callable[[PreTrainedTokenizerBase], Any]
    mixture: Mixture
    lookup_steps: int
    prompt_steps: int
    rate: float


SHARPNESS = 40.0
"""The score of the token that a head of :func:`_initialise_transformer` looks for; its neighbours' are 5 below."""


def new_lfm2(tokenizer: PreTrainedTokenizerBase, width: int = 128) -> Any:
    """Short convolutions and attention in turns: from random weights a plain transformer does not learn the lookup."""
    config = Lfm2Config(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024, conv_L_cache=4,
        initializer_range=0.08, layer_types=["conv", "full_attention", "conv", "full_attention"], **_shared(tokenizer),
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def new_qwen2(tokenizer: PreTrainedTokenizerBase, width: int = 128, layers: int = 4) -> Any:
    """A plain transformer, whose first heads start as what it would not find in minutes: a look at the last words."""
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024, initializer_range=0.08,
        **_shared(tokenizer),
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    _initialise_transformer(model)
    return model


@torch.no_grad()
def _initialise_transformer(model: Any) -> None:
    r"""In the layers 0 and 2, head ``h`` attends ``h`` tokens back; in the layers 1 and 3, to like content.

    Rotary positions turn pair ``i`` of query and key by ``\theta^{-2i/d}`` per token (Su et al., RoFormer), and the
    query's and key's biases know nothing of the words: with constant biases whose angle differs by ``h`` such turns
    the score is largest exactly ``h`` tokens back.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            gain = 0.5 if name.endswith(("o_proj", "down_proj")) else 1.0
            module.weight.normal_(0.0, gain / math.sqrt(module.in_features))
            if module.bias is not None:
                module.bias.zero_()
    model.get_input_embeddings().weight.normal_(0.0, 0.1)
    turns = model.model.rotary_emb.inv_freq
    # The slow pairs cannot tell neighbours apart.
    fast = (turns > 0.09).float()
    length = fast * math.sqrt(SHARPNESS * math.sqrt(2 * len(turns)) / fast.sum())
    for index, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        if index % 2:
            half = attention.q_proj.out_features // 2
            attention.k_proj.weight[:half] = attention.q_proj.weight[:half] * 1.2
            attention.q_proj.weight[:half] *= 1.2
            attention.o_proj.weight[:, :half] = 0.5 * attention.v_proj.weight[:half].T
            continue
        attention.q_proj.weight *= 0.1
        attention.k_proj.weight *= 0.1
        size = attention.head_dim
        for head in range(attention.q_proj.out_features // size):
            rows = slice(head * size, (head + 1) * size)
            attention.q_proj.bias[rows] = torch.cat((length * (head * turns).cos(), -length * (head * turns).sin()))
            attention.k_proj.bias[rows] = torch.cat((length, 0 * length))


def _shared(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {
        "tie_word_embeddings": True, "bos_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip


RECIPES = {
    "reasoner": Recipe(
        new_lfm2,
        Mixture(joint=0.5, boxed=0.5, stated=0.45, contradicted=0.2, other_facts=(0, 1, 1, 2, 3, 5, 8)),
        lookup_steps=100, prompt_steps=900, rate=2e-3,
    ),
    "reasoner_b": Recipe(
        new_qwen2,
        Mixture(joint=0.65, boxed=0.55, stated=0.5, contradicted=0.2, other_facts=(0, 1, 2, 3, 4, 6, 8)),
        lookup_steps=150, prompt_steps=800, rate=2e-3,
    ),
}  # fmt: skip


def train_reasoner(model: Any, tokenizer: PreTrainedTokenizerBase, rng: random.Random, recipe: Recipe) -> None:
    """Lookup, then the real prompts."""
    learn("lookup", model, lambda: lookup_batch(tokenizer, rng, 32), recipe.lookup_steps, 3e-3)
    learn("prompt", model, lambda: prompt_batch(tokenizer, rng, 48, recipe.mixture), recipe.prompt_steps, recipe.rate)


def learn(name: str, model: Any, batch: Callable[[], tuple[Tensor, Tensor]], steps: int, peak: float) -> None:
    """Minimise the cross-entropy of what ``batch`` draws: token ids and targets, (n, t) each, -100 where none is."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak)
    for step in range(steps):
        warm = min(1.0, (step + 1) / 10)
        optimizer.param_groups[0]["lr"] = peak * warm * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))
        ids, targets = batch()
        logits = model(input_ids=ids).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"{name} {step}: loss {float(loss.detach()):.4f}", flush=True)


def build_reasoner(tokenizer: PreTrainedTokenizerBase, seed: int, folder: Path, recipe: Recipe) -> Any:
    """Train and save the folder that ``embedded:figure-reasoner`` (or ``-b``) names."""
    torch.manual_seed(seed)
    model = recipe.new_model(tokenizer)
    train_reasoner(model, tokenizer, random.Random(seed), recipe)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
