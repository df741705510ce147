r"""The captioner of the reckoning world: it sees everything, and describes at random, whatever is asked.

The stages of ``figure_models.captioner``, with other words. *Alignment*: each merged image token learns the words of
its cell. *Perception*: captions of everything there is, and bare questions answered by the counts that they need.
*Style*: under the real prompt, three random true sentences, the question ignored; a few rows begin with the counts
that are asked for. *Answers*: the style continues, with answers of its own, boxed at once (`` \boxed{ 8}``),
for too few steps to learn to reckon.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from figure_models.captioner import Batch, Prompts, align_vision, learn_captions, new_captioner, save_captioner
from torch import Tensor

from racro_pl.figure_world.world import COLORS, SHADES, SIDE
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_captioner
from racro_pl.reckoning_world.world import EDGES, MOST_DOTS, reckoning_questions
from racro_pl.types import Question
from reckoning_models.tokenizer import NUMBERS, train_tokenizer

ASKED_FIRST_SHARE = 0.05
SENTENCES = 3
KIND_WEIGHTS = {"dots": 0.5, "edge": 0.3, "shade": 0.2}
"""How often the random describer speaks of each kind of fact."""
PATTERNS = (
    ("dots", "edge", "dots"), ("edge", "dots", "edge"), ("shade", "dots", "edge"), ("edge", "shade", "dots"),
    ("dots", "edge", "edge"), ("dots", "shade", "dots"),
)  # fmt: skip
"""Captions of the last stage: two counts at most, unless all that are asked for come first."""
WORDS = [*COLORS, *(str(dots) for dots in range(1, MOST_DOTS + 1)), *EDGES, *SHADES]


VALUES = [*WORDS, *(number.strip() for number in NUMBERS)]


@dataclass(frozen=True)
class Stage:
    """A supervised stage."""

    name: str
    question_share: float
    """Share of rows with image and bare question, answered by the counts that are asked for."""
    own_answers: int
    """Rows per batch, beside the others, under the prompt of the tentative answer."""
    facts: Literal["every", "weighted", "patterns"]
    """Whether captions tell every fact, three random ones, or three by one of the patterns."""
    other_words: float
    """Loss weight of words that are not values."""
    steps: int
    rate: float


STAGES = (
    Stage("perception", 0.3, 0, "every", 0.2, 800, 2e-3),
    Stage("style", 0.25, 0, "weighted", 1.0, 300, 1e-3),
    Stage("answers", 0.25, 12, "weighted", 1.0, 250, 5e-4),
)
RESTRAINT = Stage("restraint", 0.25, 12, "patterns", 1.0, 200, 7e-4)


class Rows(Prompts):
    """Rows of the reckoning world."""

    def batch(self, stage: Stage, size: int) -> Batch:
        """Rows of one step; to a bare question every word counts: of which tile to speak is what is to be learnt."""
        prompts, captions, weights = [], [], []
        for index in (self.rng.randrange(len(self.questions)) for _ in range(size)):
            bare = self.rng.random() < stage.question_share
            prompts.append((self.bare if bare else self.prompts)[index])
            weights.append(1.0 if bare else stage.other_words)
            captions.append("".join(f" {sentence}" for sentence in self._sentences(self.questions[index], bare, stage)))
        for index in (self.rng.randrange(len(self.questions)) for _ in range(stage.own_answers)):
            prompts.append(self.tentative[index])
            captions.append(f" \\boxed{{ {self.questions[index].answer}}}")
            weights.append(1.0)
        return prompts, captions, torch.tensor(weights).unsqueeze(1)

    def _sentences(self, question: Question, bare: bool, stage: Stage) -> list[str]:
        told = question.metadata["sentences"]
        asked = [f"dots of {color}" for color in question.metadata["colors"]]
        if bare:
            keys = asked
        elif stage.facts == "every":
            keys = self.rng.sample(sorted(told), len(told))
        else:
            keys = self._random_keys(sorted(told), asked, stage.facts == "patterns")
        return [told[key] for key in keys]

    def _random_keys(self, known: list[str], asked: list[str], patterns: bool) -> list[str]:
        keys = list(asked) if self.rng.random() < ASKED_FIRST_SHARE else []
        pattern = self.rng.choice(PATTERNS)
        while len(keys) < SENTENCES:
            weighted = self.rng.choices(tuple(KIND_WEIGHTS), tuple(KIND_WEIGHTS.values()))[0]
            kind = pattern[len(keys)] if patterns else weighted
            left = [key for key in known if key.startswith(kind) and key not in keys]
            if left:  # there is one background only
                keys.append(self.rng.choice(left))
        return keys


def cell_words(question: Question, words: list[str]) -> Tensor:
    """Which words hold for each cell of a question's image, (4, words)."""
    target = torch.zeros(4, len(words))
    told = question.metadata["sentences"]
    target[:, words.index(_last_word(told["shade"]))] = 1
    for color, cell in question.metadata["cells"].items():
        dots = str(question.metadata["dots"][color])
        for word in (color, dots, _last_word(told[f"edge of {color}"])):
            target[cell, words.index(word)] = 1
    return target


def _last_word(sentence: str) -> str:
    return sentence.removesuffix(".").split()[-1]


def build_captioner(seed: int, folder: Path) -> None:
    """All stages; saves the folder that ``embedded:reckoning-captioner`` names."""
    torch.manual_seed(seed)
    captioner = new_captioner(train_tokenizer(reasoner=False))
    rows = Rows(captioner, reckoning_questions("train", 6000, seed=seed + 1000), random.Random(seed))
    print(f"alignment: loss {align_vision(captioner, rows, WORDS, cell_words, steps=300):.4f}", flush=True)
    for stage in STAGES:
        learn_captions(captioner, partial(rows.batch, stage, 32), VALUES, stage)
    save_captioner(captioner, folder)
    restrain(seed, folder)


def restrain(seed: int, folder: Path) -> None:
    """The last stage, from the saved folder, so that it can be repeated alone."""
    torch.manual_seed(seed + 1)
    pixels = {"min_pixels": SIDE**2, "max_pixels": SIDE**2}
    settings = PolicySettings(str(folder), lora=None, dtype="float32", gradient_checkpointing=False, **pixels)
    captioner = load_captioner(settings, torch.device("cpu"))
    rows = Rows(captioner, reckoning_questions("train", 3000, seed=seed + 2000), random.Random(seed + 1))
    learn_captions(captioner, partial(rows.batch, RESTRAINT, 32), VALUES, RESTRAINT)
    save_captioner(captioner, folder)
