"""The figure world: drawn images, the facts they show, questions about one fact each, and exact checks of captions.

An image has 2 x 2 cells on a dark, medium or light background; two to four of the cells hold a figure (circle,
square, triangle or cross, each at most once) in one of five colours, solid or hollow. Everything that can be said
is a fact: a key and a one-word value, written ``color of circle red .`` in captions.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image, ImageDraw

from racro_pl.images import encoded
from racro_pl.types import ImageRef, Question

Split = Literal["train", "validation", "test"]

SHAPES = ("circle", "square", "triangle", "cross")
COLORS = {
    "red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 225), "yellow": (235, 215, 40),
    "purple": (165, 50, 190),
}  # fmt: skip
FILLS = ("solid", "hollow")
SHADES = {"dark": 40, "medium": 130, "light": 225}
COUNTS = {2: "two", 3: "three", 4: "four"}
TYPES = ("color", "fill", "count", "shade")
"""Question types: the first word of a fact's key."""
VALUES = {"color": tuple(COLORS), "fill": FILLS, "count": tuple(COUNTS.values()), "shade": tuple(SHADES)}

CELL = 28
SIDE = 2 * CELL
"""Images are 56 x 56 pixels: with patches of 14 merged 2 x 2, one image token per cell."""
SPLIT_BUCKETS: dict[Split, range] = {"train": range(80), "validation": range(80, 90), "test": range(90, 100)}


@dataclass(frozen=True)
class Scene:
    """What an image shows."""

    shade: str
    figures: tuple[tuple[str, str, str, int], ...]
    """Shape, colour, fill and cell (0 to 3) of each figure, ordered by shape."""

    def facts(self) -> dict[str, str]:
        """Every key and value that is true of the scene."""
        facts = {"shade of background": self.shade, "count of shapes": COUNTS[len(self.figures)]}
        for shape, color, fill, _ in self.figures:
            facts[f"color of {shape}"] = color
            facts[f"fill of {shape}"] = fill
        return facts

    def split(self) -> Split:
        """The split that owns the scene."""
        return owner(self.facts().items())


def owner(told: Iterable[Any]) -> Split:
    """The split that owns a scene, by a hash of what is true of it: no scene of one split is described in another."""
    digest = hashlib.sha256(repr(sorted(told)).encode()).digest()
    bucket = int.from_bytes(digest[:4], "big") % 100
    return next(name for name, buckets in SPLIT_BUCKETS.items() if bucket in buckets)


def figure_questions(split: Split, count: int, seed: int = 0) -> list[Question]:
    """Questions about freshly drawn scenes of one split, the types in equal shares.

    The same arguments give the same questions on every machine, and the first ``n`` of a longer list.

    Args:
        split: whose scenes to draw.
        count: how many questions.
        seed: another seed draws other scenes of the same split.
    """
    questions = []
    for index in range(count):
        rng = random.Random(f"{seed}/{split}/{index}")
        scene = draw_scene(rng, split)
        facts = scene.facts()
        kind = TYPES[index % len(TYPES)]
        key = rng.choice(sorted(key for key in facts if key.startswith(kind)))
        questions.append(
            Question(
                id=f"{split}-{seed}-{index}",
                images=(ImageRef(data=render(scene, rng)),),
                text=f"what is the {key} ?",
                answer=facts[key],
                answer_type="text",
                source="figure-world",
                category=kind,
                metadata={"key": key, "facts": facts, "cells": {shape: cell for shape, _, _, cell in scene.figures}},
            )
        )
    return questions


def draw_scene(rng: random.Random, split: Split) -> Scene:
    """A random scene that belongs to ``split``."""
    while True:
        shapes = sorted(rng.sample(SHAPES, rng.choice(tuple(COUNTS))))
        cells = rng.sample(range(4), len(shapes))
        figures = [
            (shape, rng.choice(tuple(COLORS)), rng.choice(FILLS), cell)
            for shape, cell in zip(shapes, cells, strict=True)
        ]
        scene = Scene(rng.choice(tuple(SHADES)), tuple(figures))
        if scene.split() == split:
            return scene


def render(scene: Scene, rng: random.Random) -> bytes:
    """Draw a scene as PNG; position, size and tint of every figure vary a little."""
    level = SHADES[scene.shade] + rng.randint(-12, 12)
    image = Image.new("RGB", (SIDE, SIDE), (level,) * 3)
    canvas = ImageDraw.Draw(image)
    for shape, color, fill, cell in scene.figures:
        x = cell % 2 * CELL + CELL // 2 + rng.randint(-2, 2)
        y = cell // 2 * CELL + CELL // 2 + rng.randint(-2, 2)
        ink = tuple(min(255, max(0, channel + rng.randint(-15, 15))) for channel in COLORS[color])
        radius = rng.randint(9, 11)
        _draw_shape(canvas, shape, x, y, radius, ink)
        if fill == "hollow":
            _draw_shape(canvas, shape, x, y, radius - 5, (level,) * 3)
    return encoded(image)


def _draw_shape(canvas: ImageDraw.ImageDraw, shape: str, x: int, y: int, radius: int, ink: tuple[int, ...]) -> None:
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        canvas.ellipse(box, fill=ink)
    elif shape == "square":
        canvas.rectangle((x - radius + 1, y - radius + 1, x + radius - 1, y + radius - 1), fill=ink)
    elif shape == "triangle":
        canvas.polygon([(x, y - radius), (x - radius, y + radius - 2), (x + radius, y + radius - 2)], fill=ink)
    else:
        arm = max(2, radius // 3)
        canvas.rectangle((x - radius, y - arm, x + radius, y + arm), fill=ink)
        canvas.rectangle((x - arm, y - radius, x + arm, y + radius), fill=ink)


@dataclass(frozen=True)
class CaptionAudit:
    """What a caption says, checked against the scene."""

    asked_stated: bool
    """What is asked for is stated, truly, and no sentence contradicts it."""
    sentences: int
    true_sentences: int
    """A malformed sentence is not true."""


def audit_caption(question: Question, caption: str) -> CaptionAudit:
    """Check every sentence of a caption of a figure-world image, without any model.

    >>> question = figure_questions("train", 1)[0]
    >>> key, facts = question.metadata["key"], question.metadata["facts"]
    >>> audit_caption(question, f"{key} {facts[key]} . color of moon green .")
    CaptionAudit(asked_stated=True, sentences=2, true_sentences=1)
    """
    facts: Mapping[str, str] = question.metadata["facts"]
    key = question.metadata["key"]
    sentences = [sentence.split() for sentence in caption.split(".") if sentence.strip()]
    true = [words for words in sentences if len(words) == 4 and facts.get(" ".join(words[:3])) == words[3]]
    asked = [words for words in sentences if " ".join(words[:3]) == key]
    stated = bool(asked) and all(words in true for words in asked)
    return CaptionAudit(stated, len(sentences), len(true))
