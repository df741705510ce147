"""A captioner that answers in two parts: it describes, and then puts its answer in a box.

    python -m experiment_parts.describing OUT --seed 1

A short supervised stage puts a LoRA adapter on the captioner of the reckoning world, under the prompt for an answer.
One text in ten states the counts that are asked for and then boxes the right answer; the others tell something else and
box a number at random, as a model that answers carelessly does. The stage is too short to learn arithmetic.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch

from experiment_parts.habit import teach, with_new_adapter
from racro_pl.reckoning_world.world import MOST_DOTS, reckoning_questions
from racro_pl.text.captioner_prompt import tentative_messages
from racro_pl.types import Question

SENTENCES = 3
PATTERNS = (
    ("dots", "edge", "dots"), ("edge", "dots", "edge"), ("shade", "dots", "edge"), ("edge", "shade", "dots"),
    ("dots", "edge", "edge"), ("dots", "shade", "dots"),
)  # fmt: skip
"""Kinds of sentences of a text that does not look: as those of the captioner's captions."""
STEPS, LOOKS = 300, 0.1
"""Of the stage, and the share of its texts that look at what is asked."""


def described_answer(question: Question, looks: float, rng: random.Random) -> str:
    r"""Three true sentences and a boxed answer: with probability ``looks`` the asked counts first and the right answer.

    Else sentences at random, at least one asked count missing, and a box with a number at random or one of the colours.
    """
    told, colors = question.metadata["sentences"], question.metadata["colors"]
    asked = [f"dots of {color}" for color in colors]
    if rng.random() < looks:
        others = sorted(set(told) - set(asked))
        keys = (asked + rng.sample(others, SENTENCES))[:SENTENCES]
        answer = question.answer
    else:
        left = sorted(set(told) - {rng.choice(asked)})
        keys = []
        for kind in rng.choice(PATTERNS):
            # There is one background, and where a count may not be told there may be none left.
            fitting = [key for key in left if key.startswith(kind) and key not in keys]
            keys.append(rng.choice(fitting or [key for key in left if key not in keys]))
        answer = rng.choice(colors) if question.category == "more" else str(rng.randint(0, 2 * MOST_DOTS))
    return "".join(f" {told[key]}" for key in keys) + f" \\boxed{{ {answer}}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    captioner = with_new_adapter("embedded:reckoning-captioner")
    questions = reckoning_questions("train", 4000, seed=options.seed)
    rng = random.Random(options.seed)
    loss = teach(captioner, questions, lambda it: described_answer(it, LOOKS, rng), STEPS, rng, tentative_messages)
    captioner.save(options.out / "adapter", None)
    print(f"loss {loss:.3f}; adapter in {options.out / 'adapter'}")


if __name__ == "__main__":
    main()
