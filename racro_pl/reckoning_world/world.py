"""The reckoning world: tiles with dots, and questions that need several of the counts and a little arithmetic.

An image has 2 x 2 cells on a dark, medium or light background; three or four of the cells hold a tile. Tiles have one
of five colours, each at most once, a round or a sharp edge, and one to nine white dots. A caption says what is seen,
``red has 5 dots. blue is round. background is dark.``; an answer has to be worked out from it: which tile has more
dots, a sum, a difference, or a sum less a third count.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from racro_pl.figure_world.world import CELL, COLORS, SHADES, SIDE, CaptionAudit, Split, owner
from racro_pl.images import encoded
from racro_pl.types import ImageRef, Question

EDGES = ("round", "sharp")
MOST_DOTS = 9
ASKED = {"more": 2, "sum": 2, "difference": 2, "two_steps": 3}
"""Question types, and how many tiles a question of each is about."""
WHITE = (250, 250, 250)
_DOT = 4
_STEP = 7
_PLACES = {
    1: "4", 2: "08", 3: "048", 4: "0268", 5: "02468", 6: "023568", 7: "0234568", 8: "01235678", 9: "012345678",
}  # fmt: skip
"""By number of dots: the fields of a 3 x 3 grid, counted row by row, as on dice and dominoes."""
_SENTENCE = re.compile(r"(?P<color>\w+) has (?P<dots>\d+) dots?|(?P<thing>\w+) is (?P<word>\w+)")


@dataclass(frozen=True)
class Tile:
    """One tile of a scene."""

    color: str
    dots: int
    edge: str
    cell: int
    """Of the image, row by row: 0 to 3."""


@dataclass(frozen=True)
class Scene:
    """What an image shows."""

    shade: str
    tiles: tuple[Tile, ...]
    """Ordered by colour."""

    @property
    def dots(self) -> dict[str, int]:
        """How many dots the tile of each colour has."""
        return {tile.color: tile.dots for tile in self.tiles}

    def sentences(self) -> dict[str, str]:
        """Every sentence that is true of the scene, by what it tells: ``dots of red``, ``edge of red``, ``shade``."""
        told = {"shade": shade_sentence(self.shade)}
        for tile in self.tiles:
            told[f"dots of {tile.color}"] = dots_sentence(tile.color, tile.dots)
            told[f"edge of {tile.color}"] = edge_sentence(tile.color, tile.edge)
        return told

    def split(self) -> Split:
        """The split that owns the scene."""
        return owner(self.sentences().values())


def dots_sentence(color: str, dots: int) -> str:
    """
    >>> dots_sentence("red", 1), dots_sentence("blue", 7)
    ('red has 1 dot.', 'blue has 7 dots.')
    """
    return f"{color} has {dots} dot{'' if dots == 1 else 's'}."


def edge_sentence(color: str, edge: str) -> str:
    """
    >>> edge_sentence("red", "round")
    'red is round.'
    """
    return f"{color} is {edge}."


def shade_sentence(shade: str) -> str:
    """
    >>> shade_sentence("dark")
    'background is dark.'
    """
    return f"background is {shade}."


def question_text(kind: str, colors: Sequence[str]) -> str:
    """A question of one of the types of :data:`ASKED` about tiles of these colours.

    >>> question_text("two_steps", ("red", "blue", "green"))
    'how many more dots do red and blue have than green?'
    """
    first, second, *rest = colors
    if kind == "more":
        return f"which has more dots, {first} or {second}?"
    if kind == "sum":
        return f"how many dots do {first} and {second} have together?"
    if kind == "difference":
        return f"how many more dots has {first} than {second}?"
    return f"how many more dots do {first} and {second} have than {rest[0]}?"


def work_out(kind: str, colors: Sequence[str], dots: Sequence[int]) -> str:
    """The answer to :func:`question_text` when the tiles have these dots.

    >>> work_out("more", ("red", "blue"), (5, 7)), work_out("two_steps", ("red", "blue", "green"), (5, 7, 2))
    ('blue', '10')
    """
    if kind == "more":
        return colors[0] if dots[0] > dots[1] else colors[1]
    if kind == "difference":
        return str(dots[0] - dots[1])
    return str(dots[0] + dots[1] - (dots[2] if kind == "two_steps" else 0))


def may_be_asked(kind: str, dots: Sequence[int]) -> bool:
    """Whether a question has one answer that is no negative number."""
    if kind == "more":
        return dots[0] != dots[1]
    return kind == "sum" or int(work_out(kind, (), dots)) >= 0


def reckoning_questions(split: Split, count: int, seed: int = 0, per_scene: int = 1) -> list[Question]:
    """Questions about freshly drawn scenes of one split, the types in equal shares.

    The same arguments give the same questions on every machine, and the first ``n`` of a longer list.

    Args:
        split: whose scenes to draw.
        count: how many questions.
        seed: another seed draws other scenes of the same split.
        per_scene: how many of them are about one picture, each of another type: 1 to 4.
    """
    questions: list[Question] = []
    while len(questions) < count:
        number = len(questions) // per_scene
        rng = random.Random(f"reckoning/{seed}/{split}/{number}")
        kinds = [tuple(ASKED)[(number + place) % len(ASKED)] for place in range(per_scene)]
        scene, asked = _scene_to_ask(rng, split, kinds)
        image = ImageRef(data=render(scene, rng))
        for kind, colors in zip(kinds, asked, strict=True):
            questions.append(_question(f"{split}-{seed}-{len(questions)}", scene, image, kind, colors))
    return questions[:count]


def _question(name: str, scene: Scene, image: ImageRef, kind: str, colors: tuple[str, ...]) -> Question:
    return Question(
        id=name,
        images=(image,),
        text=question_text(kind, colors),
        answer=work_out(kind, colors, [scene.dots[color] for color in colors]),
        answer_type="text",
        source="reckoning-world",
        category=kind,
        metadata={
            "colors": colors,
            "dots": scene.dots,
            "sentences": scene.sentences(),
            "cells": {tile.color: tile.cell for tile in scene.tiles},
        },
    )


def _scene_to_ask(rng: random.Random, split: Split, kinds: Sequence[str]) -> tuple[Scene, list[tuple[str, ...]]]:
    """A scene of ``split`` and for each type of question the colours to ask about."""
    while True:
        scene = draw_scene(rng, split)
        asked = [tuple(rng.sample(sorted(scene.dots), ASKED[kind])) for kind in kinds]
        dots = [[scene.dots[color] for color in colors] for colors in asked]
        if all(map(may_be_asked, kinds, dots)):
            return scene, asked


def draw_scene(rng: random.Random, split: Split) -> Scene:
    """A random scene that belongs to ``split``."""
    while True:
        colors = sorted(rng.sample(tuple(COLORS), rng.choice((3, 4))))
        cells = rng.sample(range(4), len(colors))
        tiles = tuple(
            Tile(color, rng.randint(1, MOST_DOTS), rng.choice(EDGES), cell)
            for color, cell in zip(colors, cells, strict=True)
        )
        scene = Scene(rng.choice(tuple(SHADES)), tiles)
        if scene.split() == split:
            return scene


def render(scene: Scene, rng: random.Random) -> bytes:
    """Draw a scene as PNG; the place, size and tint of every tile vary a little."""
    level = SHADES[scene.shade] + rng.randint(-12, 12)
    image = Image.new("RGB", (SIDE, SIDE), (level,) * 3)
    canvas = ImageDraw.Draw(image)
    for tile in scene.tiles:
        x = tile.cell % 2 * CELL + CELL // 2 + rng.randint(-1, 1)
        y = tile.cell // 2 * CELL + CELL // 2 + rng.randint(-1, 1)
        ink = tuple(min(255, max(0, channel + rng.randint(-15, 15))) for channel in COLORS[tile.color])
        radius = rng.randint(12, 13)
        box = (x - radius, y - radius, x + radius, y + radius)
        if tile.edge == "round":
            canvas.rounded_rectangle(box, radius=7, fill=ink)
        else:
            canvas.rectangle(box, fill=ink)
        for place in map(int, _PLACES[tile.dots]):
            left = x + (place % 3 - 1) * _STEP - _DOT // 2
            top = y + (place // 3 - 1) * _STEP - _DOT // 2
            canvas.rectangle((left, top, left + _DOT - 1, top + _DOT - 1), fill=WHITE)
    return encoded(image)


def true_caption(question: Question) -> str:
    """The shortest caption that suffices: the counts that are asked for, in the question's order.

    >>> question = reckoning_questions("train", 2)[1]
    >>> question.text, true_caption(question)
    ('how many dots do purple and blue have together?', 'purple has 2 dots. blue has 3 dots.')
    """
    return " ".join(question.metadata["sentences"][f"dots of {color}"] for color in question.metadata["colors"])


def audit_caption(question: Question, caption: str) -> CaptionAudit:
    """Check every sentence of a caption of a reckoning-world image, without any model.

    >>> question = reckoning_questions("train", 1)[0]
    >>> told = question.metadata["sentences"]
    >>> audit_caption(question, f"{told['shade']} moon has 5 dots.")
    CaptionAudit(asked_stated=False, sentences=2, true_sentences=1)
    """
    known: Mapping[str, str] = question.metadata["sentences"]
    stated = [sentence_key(part) for part in caption.split(".") if part.strip()]
    true = [key is not None and known.get(key[0]) == key[1] for key in stated]
    asked = []
    for color in question.metadata["colors"]:
        told = [right for key, right in zip(stated, true, strict=True) if key and key[0] == f"dots of {color}"]
        asked.append(bool(told) and all(told))
    return CaptionAudit(all(asked), len(stated), sum(true))


def sentence_key(sentence: str) -> tuple[str, str] | None:
    """What a sentence (without its full stop) tells, and the sentence as it is to be written; None if malformed.

    >>> sentence_key(" red has 5 dots"), sentence_key("red is round"), sentence_key("red 5")
    (('dots of red', 'red has 5 dots.'), ('edge of red', 'red is round.'), None)
    """
    words = " ".join(sentence.split())
    match = _SENTENCE.fullmatch(words)
    if match is None:
        return None
    if match["color"]:
        return f"dots of {match['color']}", f"{words}."
    return ("shade" if match["thing"] == "background" else f"edge of {match['thing']}"), f"{words}."
