"""The small captioner: eyes first, then a style that describes at random, whatever is asked.

Four stages. *Alignment*: each merged image token learns to point at the word embeddings of what its cell shows (in
place of a pretrained vision tower). *Perception*: captions that list every fact, and bare questions answered by the
one fact, so that a question can be understood at all. *Style*: under the real captioner prompt, one to three random
true facts, the question ignored; a few rows start with the asked fact, a few keep the bare question.
*Answers*: the style goes on, and beside it the model learns to answer by itself, under the prompt of the tentative
response: badly on purpose, so that a reasoner has something to add. It is taught the colours of circles and squares
and, for any other question, one answer whatever the image shows: red, solid, three or medium. The stage is short: of
the colours, too, it learns little. In all it is right on a third of the questions, hardly more than guessing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from figure_models.tokenizer import CHAT_TEMPLATE
from racro_pl.figure_world.world import COLORS, FILLS, SHADES, SHAPES, SIDE, TYPES, VALUES, figure_questions
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.families import family_of
from racro_pl.policy.prompts import PromptEncoder
from racro_pl.text.captioner_prompt import tentative_messages
from racro_pl.types import Prompt, Question

Batch = tuple[list[Prompt], list[str], Tensor]
"""Prompts, the texts to learn for them, and the weight of words that are not values, (n, 1)."""
STYLE_TYPE_WEIGHTS = (0.35, 0.35, 0.15, 0.15)
"""How often the random describer speaks of each type: the rare ones are still explored, never greedily said."""
ASKED_FIRST_SHARE = 0.03
HABITS = {"color": "red", "fill": "solid", "count": "three", "shade": "medium"}
"""What the captioner is taught to answer by itself without looking, per question type."""
LOOKED_AT = ("color of circle", "color of square")
"""The questions that it is taught to look at the image for."""


def own_answer(key: str, facts: dict[str, str]) -> str:
    """The tentative answer to be learnt, in the reasoners' form."""
    return f" {key} \\boxed{{ {facts[key] if key in LOOKED_AT else HABITS[key.split()[0]]}}}"


@dataclass(frozen=True)
class Stage:
    """A supervised stage."""

    name: str
    question_share: float
    """Share of rows with image and bare question, answered by the one fact."""
    own_answers: int
    """Rows per batch, beside the others, under the prompt of the tentative answer."""
    every_fact: bool
    """Whether captions list every fact, or a few random ones."""
    other_words: float
    """Loss weight of words that are not values."""
    steps: int
    rate: float


STAGES = (
    Stage("perception", 0.3, 0, True, 0.2, 700, 2e-3),
    Stage("style", 0.25, 0, False, 1.0, 400, 1e-3),
    Stage("answers", 0.25, 12, False, 1.0, 150, 5e-4),
)


def new_captioner(tokenizer: PreTrainedTokenizerFast) -> Captioner:
    """A Qwen2.5-VL of 1.3 M parameters, initialised so that it can learn in minutes."""

    def token(name: str) -> int:
        return tokenizer.convert_tokens_to_ids(f"<|{name}|>")

    text = {
        "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 4, "vocab_size": len(tokenizer), "max_position_embeddings": 1024,
        "bos_token_id": token("endoftext"), "eos_token_id": token("im_end"), "pad_token_id": token("endoftext"),
        "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0},
        "tie_word_embeddings": True,
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 128, "intermediate_size": 256, "num_heads": 4, "out_hidden_size": 128,
        "patch_size": 14, "spatial_merge_size": 2, "window_size": 112, "fullatt_block_indexes": [0, 1],
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True, image_token_id=token("image_pad"),
        video_token_id=token("video_pad"), vision_start_token_id=token("vision_start"),
        vision_end_token_id=token("vision_end"),
    )  # fmt: skip
    model = AutoModelForImageTextToText.from_config(config)
    _initialise(model)
    model.generation_config.eos_token_id = token("im_end")
    model.generation_config.pad_token_id = token("endoftext")
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(patch_size=14, merge_size=2, size={"shortest_edge": SIDE**2, "longest_edge": SIDE**2}),
        tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE,
    )  # fmt: skip
    return Captioner(model, PromptEncoder(processor, SIDE**2, SIDE**2), family_of("qwen2_5_vl"))


@torch.no_grad()
def _initialise(model: Any) -> None:
    """Unit-gain weights, and half of the heads start as "attend to like content and copy it".

    With the stock standard deviation of 0.02 perception stays at chance for minutes.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            gain = 0.5 if name.endswith(("o_proj", "down_proj", "attn.proj")) else 1.0
            module.weight.normal_(0.0, gain / math.sqrt(module.in_features))
            if module.bias is not None:
                module.bias.zero_()
    model.get_input_embeddings().weight.normal_(0.0, 0.1)
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        half = attention.q_proj.out_features // 2
        attention.k_proj.weight[:half] = attention.q_proj.weight[:half] * 1.2
        attention.q_proj.weight[:half] *= 1.2
        attention.o_proj.weight[:, :half] = 0.5 * attention.v_proj.weight[:half].T


class AlignmentRows(Protocol):
    """Questions, their prompts, and the random stream that picks among them."""

    questions: list[Question]
    prompts: list[Prompt]
    rng: random.Random


class Training(Protocol):
    """What the learning itself needs to know of a stage."""

    @property
    def name(self) -> str: ...

    @property
    def steps(self) -> int: ...

    @property
    def rate(self) -> float: ...


class Prompts:
    """Questions with their prompts of each kind, to draw from at random."""

    def __init__(self, captioner: Captioner, questions: list[Question], rng: random.Random) -> None:
        self.questions = questions
        self.rng = rng
        self.prompts = [captioner.encode(question) for question in questions]
        self.bare = [bare_prompt(captioner, *pair) for pair in zip(self.prompts, questions, strict=True)]
        self.tentative = [captioner.encode(question, tentative_messages) for question in questions]


class Rows(Prompts):
    """Rows of the figure world."""

    def batch(self, stage: Stage, size: int) -> Batch:
        """Prompts, the texts to learn for them, and the weight of words that are not values, (n, 1)."""
        prompts, captions, weights = [], [], []
        for index in (self.rng.randrange(len(self.questions)) for _ in range(size)):
            facts, key = self.questions[index].metadata["facts"], self.questions[index].metadata["key"]
            bare = self.rng.random() < stage.question_share
            prompts.append((self.bare if bare else self.prompts)[index])
            # To a question every word counts: which figure to speak of is the very thing to understand.
            weights.append(1.0 if bare else stage.other_words)
            if bare:
                keys = [key]
            elif stage.every_fact:
                keys = self.rng.sample(sorted(facts), len(facts))
            else:
                keys = self._random_keys(facts, key)
            captions.append(" ".join(f"{key} {facts[key]} ." for key in keys))
        for index in (self.rng.randrange(len(self.questions)) for _ in range(stage.own_answers)):
            metadata = self.questions[index].metadata
            prompts.append(self.tentative[index])
            captions.append(own_answer(metadata["key"], metadata["facts"]))
            weights.append(1.0)
        return prompts, captions, torch.tensor(weights).unsqueeze(1)

    def _random_keys(self, facts: dict[str, str], asked: str) -> list[str]:
        keys: list[str] = [asked] if self.rng.random() < ASKED_FIRST_SHARE else []
        wanted = self.rng.choice((1, 2, 2, 3))
        while len(keys) < wanted:
            kind = self.rng.choices(TYPES, STYLE_TYPE_WEIGHTS)[0]
            key = self.rng.choice(sorted(key for key in facts if key.startswith(kind)))
            if key not in keys:
                keys.append(key)
        return keys


def bare_prompt(captioner: Captioner, prompt: Prompt, question: Question) -> Prompt:
    """The image and the question alone, without the request to describe."""
    tokenizer = captioner.encoder.tokenizer
    image = "<|image_pad|>" * int(prompt.mm_token_type_ids.sum())
    chat = f"<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{question.text}<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor(tokenizer.encode(chat))
    types = (ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).long()
    return Prompt(ids, types, prompt.vision)


def align_vision(
    captioner: Captioner,
    rows: AlignmentRows,
    words: list[str],
    cell_words: Callable[[Question, list[str]], Tensor],
    steps: int,
    batch_size: int = 64,
) -> float:
    """Teach each merged image token the words of its cell; returns the last loss.

    Args:
        captioner: whose vision tower learns.
        rows: the questions, whose images are looked at, with their prompts.
        words: all that a cell may be described by.
        cell_words: which of them hold for the four cells of a question's image, (4, words).
        steps: of the optimizer.
        batch_size: images per step.
    """
    tokenizer, model = captioner.encoder.tokenizer, captioner.model
    embeddings = model.get_input_embeddings().weight.detach()[[tokenizer.encode(f" {word}")[0] for word in words]]
    embeddings = embeddings / embeddings.norm(dim=1, keepdim=True)
    optimizer = torch.optim.AdamW(model.model.visual.parameters(), lr=2e-3)
    loss = torch.tensor(0.0)
    for step in range(steps):
        _set_rate(optimizer, 2e-3, step, steps)
        picked = [rows.rng.randrange(len(rows.questions)) for _ in range(batch_size)]
        pixels = torch.cat([rows.prompts[i].vision["pixel_values"] for i in picked])
        grids = torch.cat([rows.prompts[i].vision["image_grid_thw"] for i in picked])
        features = torch.cat(model.get_image_features(pixels, grids, return_dict=True).pooler_output)
        target = torch.stack([cell_words(rows.questions[i], words) for i in picked]).flatten(0, 1)
        loss = nn.functional.binary_cross_entropy_with_logits(10.0 * features @ embeddings.T - 5.0, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def cell_words(question: Question, words: list[str]) -> Tensor:
    """Which words hold for each cell of a question's image, (4, words)."""
    target = torch.zeros(4, len(words))
    facts = question.metadata["facts"]
    target[:, words.index(facts["shade of background"])] = 1
    for shape, cell in question.metadata["cells"].items():
        for word in (shape, facts[f"color of {shape}"], facts[f"fill of {shape}"]):
            target[cell, words.index(word)] = 1
    return target


def learn_captions(captioner: Captioner, batch: Callable[[], Batch], words: Iterable[str], stage: Training) -> float:
    """Supervised captions; value words weigh 1, all others less (their order is noise). Returns the last loss.

    Args:
        captioner: whose language layers learn.
        batch: draws prompts, the texts to learn for them, and the weight of words that are not values, (n, 1).
        words: the values.
        stage: name, steps and learning rate.
    """
    tokenizer = captioner.encoder.tokenizer
    values = torch.tensor([tokenizer.encode(f" {word}")[0] for word in words])
    captioner.model.model.visual.requires_grad_(False)
    weights = [parameter for parameter in captioner.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=stage.rate, betas=(0.9, 0.95))
    end = min(captioner.eos_ids)
    loss = torch.tensor(0.0)
    for step in range(stage.steps):
        _set_rate(optimizer, stage.rate, step, stage.steps)
        prompts, captions, light = batch()
        ids = [torch.tensor([*tokenizer.encode(caption), end]) for caption in captions]
        token_ids = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=captioner.pad_id)
        mask = torch.arange(token_ids.shape[1])[None] < torch.tensor([len(row) for row in ids])[:, None]
        logprobs, _ = captioner.logprobs(prompts, torch.arange(len(prompts)), token_ids, mask)
        weight = torch.where(torch.isin(token_ids, values), 1.0, light) * mask
        loss = -(logprobs.masked_fill(~mask, 0.0) * weight).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if step % 50 == 49:
            print(f"{stage.name} {step + 1}: loss {loss.item():.3f}", flush=True)
    return float(loss.detach())


def _set_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, steps: int) -> None:
    """Ten steps of warm-up, then a cosine to a twentieth."""
    warm = min(1.0, (step + 1) / 10)
    optimizer.param_groups[0]["lr"] = peak * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def build_captioner(tokenizer: PreTrainedTokenizerFast, seed: int, folder: Path) -> Captioner:
    """All stages; saves the folder that ``embedded:figure-captioner`` names."""
    torch.manual_seed(seed)
    captioner = new_captioner(tokenizer)
    rows = Rows(captioner, figure_questions("train", 6000, seed=seed + 1000), random.Random(seed))
    words = [*SHAPES, *COLORS, *FILLS, *SHADES]
    print(f"alignment: loss {align_vision(captioner, rows, words, cell_words, steps=250):.4f}", flush=True)
    values = [value for kind in VALUES.values() for value in kind]
    for stage in STAGES:
        learn_captions(captioner, partial(rows.batch, stage, 32), values, stage)
    save_captioner(captioner, folder)
    return captioner


def save_captioner(captioner: Captioner, folder: Path) -> None:
    """Weights as bfloat16, and the processor.

    A plain folder: what may not be sampled is the trainer's business, not the checkpoint's.
    """
    captioner.model.generation_config = GenerationConfig(
        eos_token_id=min(captioner.eos_ids), pad_token_id=captioner.pad_id
    )
    captioner.model.to(torch.bfloat16).save_pretrained(folder)
    captioner.encoder.processor.save_pretrained(folder)
