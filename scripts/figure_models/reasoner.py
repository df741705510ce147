"""The small reasoner: reads a caption and a question in the real training prompt and answers in a box.

It repeats the question's key and then looks its value up in the caption: ``color of circle \\boxed{red}``. First it
learns to look keys up at all, on long lists of repeated facts; then to answer the real prompt, and to say
``\\boxed{unknown}`` whenever no well-formed sentence states the asked fact. Captions that try to fool it (values of
another attribute, other figures, torn, bare or contradicting sentences) are most of what it sees.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Lfm2Config, PreTrainedTokenizerFast

from racro_pl.figures.world import SHAPES, TYPES, VALUES
from racro_pl.text.reasoner_prompt import reasoner_messages

KEYS = [f"{kind} of {shape}" for kind in ("color", "fill") for shape in SHAPES]
KEYS += ["count of shapes", "shade of background"]
ALL_VALUES = [value for values in VALUES.values() for value in values]


def values_of(key: str) -> tuple[str, ...]:
    """The values that a key can have."""
    return VALUES[key.split()[0]]


def new_reasoner(tokenizer: PreTrainedTokenizerFast) -> nn.Module:
    """Short convolutions and attention in turns (LFM2): a plain transformer of this size does not learn the lookup."""
    config = Lfm2Config(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=1024, conv_L_cache=4, initializer_range=0.08,
        layer_types=["conv", "full_attention", "conv", "full_attention"], tie_word_embeddings=True,
        bos_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


def random_caption(rng: random.Random, key: str) -> tuple[str, str]:
    """A caption and the right answer about ``key`` from it.

    The answer is the value only where a well-formed sentence states it and no other sentence about ``key`` differs.
    """
    truth = rng.choice(values_of(key))
    fact = f"{key} {truth} ."
    sentences = [_other_fact(rng, key) for _ in range(rng.choice((0, 1, 1, 2, 3, 5)))]
    draw = rng.random()
    if draw < 0.55:
        sentences += [fact] * rng.choice((1, 1, 1, 2))
        if rng.random() < 0.3:
            # A trap beside the real sentence does not take the answer away.
            sentences.append(_trap(rng, key))
    elif draw < 0.72:
        sentences += [fact, f"{key} {rng.choice([value for value in ALL_VALUES if value != truth])} ."]
    else:
        sentences += [_trap(rng, key) for _ in range(rng.choice((0, 1, 1, 2)))]
    rng.shuffle(sentences)
    caption = " ".join(sentences)
    if rng.random() < 0.1:
        caption = caption.removesuffix(" .")
    return caption, truth if stated_value(key, caption) == truth else "unknown"


def stated_value(key: str, caption: str) -> str | None:
    """The rule to be learnt: the one value that well-formed sentences give ``key``, or None."""
    found = set()
    for words in (sentence.split() for sentence in caption.split(".")):
        if " ".join(words[:3]) == key:
            found.add(words[3] if len(words) == 4 and words[3] in values_of(key) else None)
    return found.pop() if len(found) == 1 else None


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
            " ".join(rng.choices((kind, "of", thing, value, ".", other, key), k=rng.randrange(3, 12))),
        )
    )  # fmt: skip


def render_example(
    tokenizer: PreTrainedTokenizerFast, key: str, caption: str, answer: str
) -> tuple[list[int], list[int]]:
    """Token ids of prompt and answer."""
    messages = reasoner_messages(f"what is the {key} ?", caption)
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    reply = f" {key} \\boxed{{ {answer}}}"
    return tokenizer.encode(prompt), [*tokenizer.encode(reply), tokenizer.eos_token_id]


def _prompt_batch(tokenizer: PreTrainedTokenizerFast, rng: random.Random, size: int) -> tuple[Tensor, Tensor]:
    ids, targets = [], []
    for _ in range(size):
        key = rng.choice(KEYS)
        prompt, reply = render_example(tokenizer, key, *_example(rng, key))
        ids.append(torch.tensor(prompt + reply))
        targets.append(torch.tensor([-100] * len(prompt) + reply))
    pad = nn.utils.rnn.pad_sequence
    return (
        pad(ids, batch_first=True, padding_value=tokenizer.pad_token_id),
        pad(targets, batch_first=True, padding_value=-100),
    )


def _example(rng: random.Random, key: str) -> tuple[str, str]:
    return random_caption(rng, key)


def _lookup_batch(tokenizer: PreTrainedTokenizerFast, rng: random.Random, size: int) -> tuple[Tensor, Tensor]:
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


def train_reasoner(
    model: nn.Module, tokenizer: PreTrainedTokenizerFast, rng: random.Random, steps: dict[str, int]
) -> None:
    """Lookup, then the real prompt."""
    for name, make, size in (("lookup", _lookup_batch, 32), ("prompt", _prompt_batch, 64)):
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for step in range(steps[name]):
            rate = 3e-3 if name == "lookup" else 2e-3
            optimizer.param_groups[0]["lr"] = (
                rate * min(1.0, (step + 1) / 10) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps[name])))
            )
            ids, targets = make(tokenizer, rng, size)
            logits = model(input_ids=ids).logits[:, :-1]
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=-100)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if step % 50 == 0 or step == steps[name] - 1:
                print(f"{name} {step}: loss {float(loss.detach()):.4f}", flush=True)


def build_reasoner(tokenizer: PreTrainedTokenizerFast, seed: int, folder: Path) -> nn.Module:
    """Train and save the folder that ``embedded:figure-reasoner`` names."""
    torch.manual_seed(seed)
    model = new_reasoner(tokenizer)
    train_reasoner(model, tokenizer, random.Random(seed), {"lookup": 100, "prompt": 700})
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
