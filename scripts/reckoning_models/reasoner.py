r"""The reasoners of the reckoning world, of rising strength, learnt on text alone.

Each first learns to look counts up at all, on long lists, then to answer the real prompts. ``weak`` and ``middle``
repeat the counts that are asked for and answer at once (`` red 5 blue 3 \boxed{ 8}``); ``strong`` works step by step.
``weak`` is a small model stopped early: it looks up well and reckons badly. ``narrow`` is as small, learns comparisons
and differences alone, and those well: it never saw a sum.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from figure_models.reasoner import learn, new_lfm2, new_qwen2
from transformers import PreTrainedTokenizerBase

from racro_pl.reckoning_world.world import ASKED
from reckoning_models.rows import lookup_batch, prompt_batch
from reckoning_models.tokenizer import as_loaded, train_tokenizer


@dataclass(frozen=True)
class Recipe:
    """One reasoner: its architecture, what it sees, and for how many steps."""

    new_model: Callable[[PreTrainedTokenizerBase], Any]
    lookup_steps: int
    prompt_steps: int
    rate: float
    steps: bool
    """Whether it writes its steps out."""
    sums: bool = True
    """Whether the lists hold sums."""
    kinds: tuple[str, ...] = tuple(ASKED)
    """Types of the questions that it is taught."""
    joint: float = 0.5
    """Share of its prompts with a tentative answer beside the caption."""


RECIPES = {
    "weak": Recipe(lambda tokenizer: new_qwen2(tokenizer, width=64, layers=2), 200, 350, 3e-3, steps=False, sums=False),
    "middle": Recipe(lambda tokenizer: new_lfm2(tokenizer, width=96), 150, 700, 3e-3, steps=False, joint=0.7),
    "strong": Recipe(new_qwen2, 150, 700, 2e-3, steps=True),
    "narrow": Recipe(
        lambda tokenizer: new_qwen2(tokenizer, width=64, layers=2), 200, 700, 3e-3, steps=False, sums=False,
        kinds=("more", "difference"),
    ),
}  # fmt: skip


def build_reasoner(seed: int, folder: Path, recipe: Recipe) -> Any:
    """Train one reasoner with the tokenizer that users will get, and save it as bfloat16."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = train_tokenizer(reasoner=True)
    model = recipe.new_model(tokenizer)
    # Configuration and tokenizer first: which rule for splitting text a loaded tokenizer has depends on both.
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    loaded = as_loaded(folder)
    learn("lookup", model, lambda: lookup_batch(loaded, rng, 32, recipe.sums), recipe.lookup_steps, 3e-3)
    learn(
        "prompt", model, lambda: prompt_batch(loaded, rng, 32, recipe.kinds, recipe.steps, recipe.joint),
        recipe.prompt_steps, recipe.rate,
    )  # fmt: skip
    model.to(torch.bfloat16).save_pretrained(folder)
    return model
