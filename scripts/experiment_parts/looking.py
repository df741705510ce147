r"""A captioner that can look before it answers, and seldom does: where GRPO on own answers has something to find.

    python -m experiment_parts.looking OUT --seed 1

The embedded captioner of the reckoning world boxes its answers at once, and learns to reckon by that neither from
rewards nor from examples. Two supervised stages of all its language weights give it another way of answering. *Look*:
the counts that are asked for, then the box, `` red 5 blue 3 \boxed{ 8}``. *Careless*: three of four answers are a
number or a colour out of thin air, boxed at once; the others look. Captions are rehearsed in both. The low score that
a run starts from is thus a planted habit, and part of what training wins back was taught here.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from figure_models.captioner import Batch, learn_captions, save_captioner
from reckoning_models.captioner import RESTRAINT, VALUES, Rows
from reckoning_models.rows import Asked, recalled

from racro_pl.figure_world.models import resolve_model
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_captioner
from racro_pl.reckoning_world.world import MOST_DOTS, reckoning_questions
from racro_pl.types import Question

PIXELS = 56 * 56
CAPTIONS, ANSWERS = 8, 32
"""Rows of a batch."""


@dataclass(frozen=True)
class Stage:
    """A supervised stage, as ``learn_captions`` takes it."""

    name: str
    careless: float
    """Share of answers out of thin air."""
    steps: int
    rate: float


STAGES = (Stage("look", 0.0, 500, 2e-3), Stage("careless", 0.75, 100, 4e-4))


def answer_text(question: Question, careless: float, rng: random.Random) -> str:
    r"""An answer that looks first; or, with probability ``careless``, a guess boxed at once.

    >>> question = reckoning_questions("train", 2)[1]
    >>> question.text, answer_text(question, 0.0, random.Random(0))
    ('how many dots do purple and blue have together?', ' purple 2 blue 3 \\boxed{ 5}')
    """
    colors, dots = question.metadata["colors"], question.metadata["dots"]
    if rng.random() >= careless:
        asked = Asked(question.category, colors, tuple(dots[color] for color in colors))
        return recalled(asked, question.answer)
    guess = rng.choice(colors[:2]) if question.category == "more" else str(rng.randint(0, 2 * MOST_DOTS))
    return f" \\boxed{{ {guess}}}"


def batch_of(rows: Rows, stage: Stage) -> Batch:
    """Captions and answers of one step."""
    prompts, texts, weights = rows.batch(RESTRAINT, CAPTIONS)
    prompts, texts = prompts[:CAPTIONS], texts[:CAPTIONS]  # without the answers that this stage does away with
    for index in (rows.rng.randrange(len(rows.questions)) for _ in range(ANSWERS)):
        prompts.append(rows.tentative[index])
        texts.append(answer_text(rows.questions[index], stage.careless, rows.rng))
    return prompts, texts, torch.cat([weights[:CAPTIONS], torch.ones(ANSWERS, 1)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    settings = PolicySettings(
        path=resolve_model("embedded:reckoning-captioner"), lora=None, dtype="float32", gradient_checkpointing=False,
        min_pixels=PIXELS, max_pixels=PIXELS,
    )  # fmt: skip
    captioner = load_captioner(settings, torch.device("cpu"))
    rows = Rows(captioner, reckoning_questions("train", 4000, seed=options.seed + 3000), random.Random(options.seed))
    for stage in STAGES:
        learn_captions(captioner, lambda stage=stage: batch_of(rows, stage), VALUES, stage)  # type: ignore[misc]
    save_captioner(captioner, options.out / "model")
    print(f"model in {options.out / 'model'}")


if __name__ == "__main__":
    main()
