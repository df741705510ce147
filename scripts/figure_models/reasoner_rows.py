r"""What the small reasoners learn from: captions, tentative answers, the rule that answers them, and traps."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from racro_pl.figure_world.world import SHAPES, TYPES, VALUES
from racro_pl.text.answers import extract_answer
from racro_pl.text.reasoner_prompt import joint_messages, reasoner_messages

KEYS = [f"{kind} of {shape}" for kind in ("color", "fill") for shape in SHAPES]
KEYS += ["count of shapes", "shade of background"]
ALL_VALUES = [value for values in VALUES.values() for value in values]


@dataclass(frozen=True)
class Mixture:
    """Shares of what a reasoner sees in training."""

    joint: float
    """Prompts with caption and tentative answer; the others have the caption alone."""
    boxed: float
    """Tentative answers with a possible value in a box, in the captioner's own form; a tenth has it in another form."""
    stated: float
    """Captions that state the asked fact."""
    contradicted: float
    """Captions that state it and deny it; the rest do not state it."""
    other_facts: tuple[int, ...]
    """How many sentences about other keys, drawn from with equal chances."""


def values_of(key: str) -> tuple[str, ...]:
    """The values that a key can have."""
    return VALUES[key.split()[0]]


def stated_value(key: str, caption: str) -> str | None:
    """The rule to be learnt: the one value that well-formed sentences give ``key``, or None."""
    found = set()
    for words in (sentence.split() for sentence in caption.split(".")):
        if " ".join(words[:3]) == key:
            found.add(words[3] if len(words) == 4 and words[3] in values_of(key) else None)
    return found.pop() if len(found) == 1 else None


def ruled_answer(key: str, caption: str, tentative: str | None) -> str:
    """What the caption states; else what the tentative answer has in its box, where that can be; else unknown."""
    boxed = extract_answer(tentative or "")
    return stated_value(key, caption) or (boxed if boxed in values_of(key) else None) or "unknown"


def box(key: str, value: str) -> str:
    """An answer as both captioner and reasoners write it."""
    return f" {key} \\boxed{{ {value}}}"


def random_caption(rng: random.Random, key: str, mixture: Mixture) -> str:
    """A caption that states the fact asked for, states and denies it, or only comes near."""
    truth = rng.choice(values_of(key))
    fact = f"{key} {truth} ."
    sentences = [_other_fact(rng, key) for _ in range(rng.choice(mixture.other_facts))]
    draw = rng.random()
    if draw < mixture.stated:
        sentences += [fact] * rng.choice((1, 1, 1, 2))
        if rng.random() < 0.3:
            # A trap beside the real sentence does not take the answer away.
            sentences.append(_trap(rng, key))
    elif draw < mixture.stated + mixture.contradicted:
        sentences += [fact, f"{key} {rng.choice([value for value in ALL_VALUES if value != truth])} ."]
    else:
        sentences += [_trap(rng, key) for _ in range(rng.choice((0, 1, 1, 2)))]
    rng.shuffle(sentences)
    caption = " ".join(sentences)
    return caption.removesuffix(" .") if rng.random() < 0.1 else caption


def random_tentative(rng: random.Random, key: str, mixture: Mixture) -> str:
    """A tentative answer: mostly a box with a possible value, else something that answers nothing."""
    value = rng.choice(values_of(key))
    foreign = rng.choice([candidate for candidate in ALL_VALUES if candidate not in values_of(key)])
    draw = rng.random()
    if draw < mixture.boxed:
        text = box(key, value)
    elif draw < mixture.boxed + 0.1:
        text = rng.choice((f"\\boxed{{ {value}}}", f"\\boxed{{{value}}}", box(rng.choice(KEYS), value)))
    elif draw < 0.8:
        text = box(key, rng.choice((foreign, foreign, "unknown")))
    else:
        text = rng.choice(("", value, _other_fact(rng, key), f" {key}", _trap(rng, key)))
    return text.strip() if rng.random() < 0.3 else text


def _other_fact(rng: random.Random, key: str) -> str:
    other = rng.choice([candidate for candidate in KEYS if candidate != key])
    return f"{other} {rng.choice(values_of(other))} ."


def _trap(rng: random.Random, key: str) -> str:
    """Something that is near the asked fact and does not state it."""
    kind, _, thing = key.split()
    value = rng.choice(values_of(key))
    wrong = rng.choice([candidate for candidate in ALL_VALUES if candidate not in values_of(key)])
    other = rng.choice([t for t in (*SHAPES, "shapes", "background") if t != thing])
    attribute = rng.choice([t for t in TYPES if t != kind])
    return rng.choice(
        (
            f"{key} {wrong} .", f"{attribute} of {thing} {value} .", f"{kind} of {other} {value} .", f"{value} .",
            f"{key} .", f"{key}", f"{thing} {value} .", f"of {thing} {value} .", f"{kind} {value} .",
            f"{kind} {thing} {value} .", f"{value} {value} {value} .", f"{kind} of {value} .", f"{key} of {value} .",
            f"{key} {thing} {value} .", f"{attribute} of {other} {value} .", f"{value} {key} .",
            f"{key} {value} {rng.choice(values_of(key))} .", f"{key} {key} {value} .",
            # The captioner knows this form from its own answers; in a caption it states nothing.
            f"{box(key, value)} .", f"\\boxed{{ {value}}} .",
            " ".join(rng.choices((kind, "of", thing, value, ".", other, key), k=rng.randrange(3, 12))),
        )
    )  # fmt: skip


def prompt_batch(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, size: int, mixture: Mixture
) -> tuple[Tensor, Tensor]:
    """Real prompts with their answers: token ids and targets, (n, t) each; -100 where nothing is to be learnt."""
    rows = []
    for _ in range(size):
        key = rng.choice(KEYS)
        caption = random_caption(rng, key, mixture)
        tentative = random_tentative(rng, key, mixture) if rng.random() < mixture.joint else None
        prompt = tokenizer.encode(render_prompt(tokenizer, key, caption, tentative))
        answer = box(key, ruled_answer(key, caption, tentative))
        reply = [*tokenizer.encode(answer), tokenizer.eos_token_id]
        rows.append((prompt + reply, [-100] * len(prompt) + reply))
    return pad_rows(rows, tokenizer.pad_token_id)


def pad_rows(rows: Sequence[tuple[list[int], list[int]]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and targets of rows of any length, (n, longest) each; nothing is to be learnt of the padding."""
    ids, targets = ([torch.tensor(each) for each in side] for side in zip(*rows, strict=True))
    pad = nn.utils.rnn.pad_sequence
    return pad(ids, batch_first=True, padding_value=pad_id), pad(targets, batch_first=True, padding_value=-100)


def render_prompt(tokenizer: PreTrainedTokenizerFast, key: str, caption: str, tentative: str | None) -> str:
    """The chat as the reasoner reads it, with or without a tentative answer."""
    question = f"what is the {key} ?"
    messages = (
        reasoner_messages(question, caption) if tentative is None else joint_messages(question, caption, tentative)
    )
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def lookup_batch(tokenizer: PreTrainedTokenizerFast, rng: random.Random, size: int) -> tuple[Tensor, Tensor]:
    """Lists of facts whose keys come back: the value is to be predicted wherever its key was seen before."""
    ids, targets = [], []
    for _ in range(size):
        facts = {key: rng.choice(values_of(key)) for key in rng.sample(KEYS, 5)}
        row, target = [], []
        seen: set[str] = set()
        for key in rng.choices(list(facts), k=14):
            tokens = tokenizer.encode(f" {key} {facts[key]} .")
            row += tokens
            target += [-100] * (len(tokens) - 2) + [tokens[-2] if key in seen else -100, -100]
            seen.add(key)
        ids.append(torch.tensor(row))
        targets.append(torch.tensor(target))
    return torch.stack(ids), torch.stack(targets)
