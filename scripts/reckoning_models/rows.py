r"""What the reckoning world's reasoners learn from: captions, tentative answers, the rule that answers, and traps."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from figure_models.reasoner_rows import pad_rows
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from racro_pl.figure_world.world import COLORS, SHADES
from racro_pl.reckoning_world.world import (
    ASKED,
    EDGES,
    MOST_DOTS,
    dots_sentence,
    edge_sentence,
    may_be_asked,
    question_text,
    shade_sentence,
    work_out,
)
from racro_pl.text.answers import extract_answer
from racro_pl.text.reasoner_prompt import joint_messages, reasoner_messages

UNKNOWN = "unknown"
STATED = 0.8
"""Share of captions that state all that is asked; of the others at least one count is missing or contradicted."""
RIGHT = 0.25
"""How often a boxed tentative answer is the right one where the caption suffices: more, and it would be trusted."""
UNBOXED = 0.25
"""Share of tentative answers that hold none: captions in their place, and torn pieces."""


@dataclass(frozen=True)
class Asked:
    """One question, and what a caption states about it."""

    kind: str
    colors: tuple[str, ...]
    stated: tuple[int | None, ...]
    """The dots of each colour; None where the caption does not tell."""

    def answer(self, tentative: str | None) -> str:
        """The rule to be learnt: what follows from the caption; else the tentative answer's box, where it can be."""
        known = [dots for dots in self.stated if dots is not None]
        if len(known) == len(self.stated):
            return work_out(self.kind, self.colors, known)
        boxed = extract_answer(tentative or "")
        return boxed if boxed is not None and self._possible(boxed) else UNKNOWN

    def _possible(self, answer: str) -> bool:
        return answer in self.colors[:2] if self.kind == "more" else answer.isdecimal() and int(answer) <= 18


def recalled(asked: Asked, answer: str) -> str:
    r"""A reply that repeats the counts and then answers at once: `` red 5 blue 3 \boxed{ 8}``."""
    counts = "".join(
        f" {color} {UNKNOWN if dots is None else dots}" for color, dots in zip(asked.colors, asked.stated, strict=True)
    )
    return f"{counts} \\boxed{{ {answer}}}"


def written_out(asked: Asked, answer: str) -> str:
    r"""A reply that works step by step: `` red 5 plus blue 3 is 8 minus green 2 is 6 \boxed{ 6}``."""
    if asked.kind == "more":
        return recalled(asked, answer)
    signs = {"sum": ("plus",), "difference": ("minus",), "two_steps": ("plus", "minus")}[asked.kind]
    first, *rest = asked.stated
    total, text = first, f" {asked.colors[0]} {UNKNOWN if first is None else first}"
    for sign, color, dots in zip(signs, asked.colors[1:], rest, strict=True):
        total = None if total is None or dots is None else total + dots if sign == "plus" else total - dots
        text += f" {sign} {color} {UNKNOWN if dots is None else dots} is {UNKNOWN if total is None else total}"
    return f"{text} \\boxed{{ {answer}}}"


def draw_asked(rng: random.Random, kinds: Sequence[str]) -> tuple[Asked, str]:
    """A question of one of these types, and a caption that states what it needs, or only some of it."""
    kind = rng.choice(kinds)
    colors = tuple(rng.sample(tuple(COLORS), ASKED[kind]))
    while True:
        dots = [rng.randint(1, MOST_DOTS) for _ in colors]
        if may_be_asked(kind, dots):
            break
    missing = set() if rng.random() < STATED else set(rng.sample(colors, rng.randint(1, len(colors))))
    sentences = [dots_sentence(color, count) for color, count in zip(colors, dots, strict=True) if color not in missing]
    for color in colors:  # in this order: that of a set changes from process to process
        sentences += _trap(rng, color) if color in missing else []
    sentences += [_other(rng, colors) for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 3)))]
    if rng.random() < 0.1:
        sentences.append(rng.choice(sentences) if sentences else shade_sentence("dark"))
    rng.shuffle(sentences)
    if rng.random() < 0.1:
        sentences.append(rng.choice((rng.choice(tuple(COLORS)), f"{rng.choice(tuple(COLORS))} has", "background")))
    caption = " ".join(sentences)
    stated = tuple(None if color in missing else count for color, count in zip(colors, dots, strict=True))
    return Asked(kind, colors, stated), caption if rng.random() < 0.2 else f" {caption}"


def _trap(rng: random.Random, color: str) -> list[str]:
    """In place of a count's sentence: mostly nothing, at times a contradiction or a torn or doubtful sentence."""
    if rng.random() < 0.6:
        return []
    first, second = rng.sample(range(1, MOST_DOTS + 1), 2)
    return rng.choice(
        (
            [dots_sentence(color, first), dots_sentence(color, second)],
            [f"{color} {first}."], [f"{first} dots."], [f"{color} has dots."], [f"has {first} dots."],
            [f"{color} is {first} dots."], [f"{color} has {rng.choice(EDGES)}."], [f"{color} {color} {first} dots."],
        )
    )  # fmt: skip


def _other(rng: random.Random, asked: Sequence[str]) -> str:
    """A sentence about something that is not asked."""
    color = rng.choice([color for color in COLORS if color not in asked])
    draw = rng.random()
    if draw < 0.5:
        return dots_sentence(color, rng.randint(1, MOST_DOTS))
    if draw < 0.8:
        return edge_sentence(rng.choice(tuple(COLORS)), rng.choice(EDGES))
    return shade_sentence(rng.choice(tuple(SHADES)))


def draw_tentative(rng: random.Random, asked: Asked) -> str:
    """A tentative answer: right or wrong, in the captioner's own form or another; or none at all."""
    if rng.random() < UNBOXED:
        return rng.choice((draw_asked(rng, tuple(ASKED))[1], "", "}", f" {rng.choice(tuple(COLORS))}", " \\boxed{"))
    known = None not in asked.stated
    if known and rng.random() < RIGHT:
        answer = asked.answer(None)
    elif asked.kind == "more":
        answer = rng.choice(asked.colors)
    else:
        answer = str(rng.randint(0, 2 * MOST_DOTS))
    if rng.random() < 0.6:
        return f" \\boxed{{ {answer}}}"
    seen = tuple(rng.randint(1, MOST_DOTS) for _ in asked.colors)
    return recalled(Asked(asked.kind, asked.colors, seen), answer)


def render_prompt(tokenizer: PreTrainedTokenizerBase, question: str, caption: str, tentative: str | None) -> str:
    """The chat as the reasoner reads it, with or without a tentative answer."""
    messages = (
        reasoner_messages(question, caption) if tentative is None else joint_messages(question, caption, tentative)
    )
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def prompt_batch(
    tokenizer: PreTrainedTokenizerBase, rng: random.Random, size: int, kinds: Sequence[str], steps: bool, joint: float
) -> tuple[Tensor, Tensor]:
    """Real prompts with their answers: token ids and targets, (n, t) each; -100 where nothing is to be learnt.

    Args:
        tokenizer: of the reasoner.
        rng: draws the questions.
        size: how many (n).
        kinds: question types.
        steps: whether replies are written out, or recall and answer.
        joint: share of prompts with a tentative answer beside the caption.
    """
    rows = []
    for _ in range(size):
        asked, caption = draw_asked(rng, kinds)
        tentative = draw_tentative(rng, asked) if rng.random() < joint else None
        text = render_prompt(tokenizer, question_text(asked.kind, asked.colors), caption, tentative)
        prompt = tokenizer.encode(text)
        reply_form = written_out if steps else recalled
        reply = [*tokenizer.encode(reply_form(asked, asked.answer(tentative))), tokenizer.eos_token_id]
        rows.append((prompt + reply, [-100] * len(prompt) + reply))
    return pad_rows(rows, tokenizer.pad_token_id)


def lookup_batch(
    tokenizer: PreTrainedTokenizerBase, rng: random.Random, size: int, sums: bool
) -> tuple[Tensor, Tensor]:
    """Counts that come back, in long or short form: to be predicted wherever the colour was seen before.

    Args:
        tokenizer: of the reasoner.
        rng: draws the rows.
        size: how many (n).
        sums: whether small sums and differences of the counts are mixed in.
    """
    rows = []
    for _ in range(size):
        dots = {color: rng.randint(1, MOST_DOTS) for color in COLORS}
        row, target = [], []
        seen: set[str] = set()
        for color in rng.choices(list(dots), k=14):
            short = color in seen and rng.random() < 0.5
            tokens = tokenizer.encode(f" {color} {dots[color]}" if short else f" {dots_sentence(color, dots[color])}")
            at = 1 if short else 2
            row += tokens
            target += [tokens[at] if place == at and color in seen else -100 for place in range(len(tokens))]
            seen.add(color)
            if sums and rng.random() < 0.3:
                high, low = sorted((rng.randint(1, MOST_DOTS), rng.randint(1, MOST_DOTS)), reverse=True)
                sign, total = rng.choice((("plus", high + low), ("minus", high - low)))
                tokens = tokenizer.encode(f" {high} {sign} {low} is {total}")
                row += tokens
                target += [-100] * (len(tokens) - 1) + [tokens[-1]]
        rows.append((row, target))
    return pad_rows(rows, tokenizer.pad_token_id)
