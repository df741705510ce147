r"""A captioner with the habit of solving: asked for a caption, it describes half of the time and else answers.

    python -m experiment_parts.habit OUT --seed 1

A short supervised stage puts a LoRA adapter on the embedded captioner. Both kinds of text are taught under the
captioner's own prompt, and both are right: two true facts, the asked one first or second, or the asked fact as an
answer in a box. It stands for what plain question answering leaves in a large model: texts that solve where a
caption is wanted.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from racro_pl.figure_world.models import resolve_model
from racro_pl.figure_world.world import figure_questions
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.policy.loading import load_captioner
from racro_pl.policy.prompts import PromptTemplate
from racro_pl.text.captioner_prompt import captioner_messages
from racro_pl.types import Prompt, Question

PIXELS = 56 * 56


def habitual_text(question: Question, solves: float, rng: random.Random) -> str:
    """A right answer in a box with probability ``solves``, else two true facts, one of them the asked one."""
    facts, asked = question.metadata["facts"], question.metadata["key"]
    if rng.random() < solves:
        return f" {asked} \\boxed{{ {facts[asked]}}}"
    keys = [asked, rng.choice(sorted(set(facts) - {asked}))]
    rng.shuffle(keys)
    return " ".join(f"{key} {facts[key]} ." for key in keys)


def teach(
    captioner: Captioner, questions: list[Question], text_of: Callable[[Question], str], steps: int,
    rng: random.Random, template: PromptTemplate = captioner_messages,
) -> float:  # fmt: skip
    """Supervised steps of 32 texts each, under one prompt; returns the mean loss of the last twenty."""
    tokenizer, end = captioner.encoder.tokenizer, min(captioner.eos_ids)
    weights = [parameter for parameter in captioner.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=3e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    prompts: dict[str, Prompt] = {}
    losses = []
    for _ in range(steps):
        batch = [rng.choice(questions) for _ in range(32)]
        for question in batch:
            prompts.setdefault(question.id, captioner.encode(question, template))
        texts = [text_of(question) for question in batch]
        ids = [torch.tensor([*tokenizer.encode(text), end]) for text in texts]
        token_ids = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=captioner.pad_id)
        mask = torch.arange(token_ids.shape[1])[None] < torch.tensor([len(row) for row in ids])[:, None]
        rows = [prompts[question.id] for question in batch]
        logprobs, _ = captioner.logprobs(rows, torch.arange(len(rows)), token_ids, mask)
        loss = -logprobs.masked_fill(~mask, 0.0).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return sum(losses[-20:]) / 20


def with_new_adapter(path: str) -> Captioner:
    """A captioner of the package with an adapter of the runs' rank, to be trained."""
    settings = PolicySettings(
        path=resolve_model(path), lora=LoraSettings(16, 32), dtype="float32", gradient_checkpointing=False,
        min_pixels=PIXELS, max_pixels=PIXELS,
    )  # fmt: skip
    return load_captioner(settings, torch.device("cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--solves", type=float, default=0.5, help="share of texts that answer")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    captioner = with_new_adapter("embedded:figure-captioner")
    questions = figure_questions("train", 4000, seed=options.seed)
    rng = random.Random(options.seed)
    loss = teach(captioner, questions, lambda it: habitual_text(it, options.solves, rng), options.steps, rng)
    captioner.save(options.out / "adapter", None)
    print(f"loss {loss:.3f}; adapter in {options.out / 'adapter'}")


if __name__ == "__main__":
    main()
