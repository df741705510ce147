"""A byte-level tokenizer in which every word of the figure world is one token, and so is every fixed sentence of
the real prompts: the models are small, and so are their prompts."""

from __future__ import annotations

import re

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from racro_pl.figure_world.world import SHAPES, TYPES, VALUES
from racro_pl.text.captioner_prompt import captioner_messages, tentative_messages
from racro_pl.text.reasoner_prompt import joint_messages, reasoner_messages
from racro_pl.types import Messages

NAMES = ("endoftext", "im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")
SPECIAL = [f"<|{name}|>" for name in NAMES]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = sorted(
    {
        *SHAPES,
        *TYPES,
        *(value for values in VALUES.values() for value in values),
        "of",
        "shapes",
        "background",
        "unknown",
    }
)

HOLES = ("QUESTION", "CAPTION", "TENTATIVE")


def fixed_sentences(messages: Messages) -> list[str]:
    """What prompts say around question, caption and tentative answer."""
    texts = []
    for message in messages:
        content = message["content"]
        texts += [content] if isinstance(content, str) else [part["text"] for part in content if "text" in part]
    pieces = [piece.strip() for text in texts for piece in re.split("|".join(HOLES), text)]
    return sorted({piece for piece in pieces if piece})


def byte_level(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with pairs learnt from ``texts``, with the worlds' chat template and special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=1,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
        },
    )


def train_tokenizer(joint: bool) -> PreTrainedTokenizerFast:
    """Merges are learnt from the prompts and the words; the boxes are added whole, so an answer is one token.

    Args:
        joint: whether the sentences of the joint prompt, which only reasoners read, become tokens too.
    """
    texts = ["".join(f" {word}" for word in WORDS), " . ?", *WORDS]
    for messages in (captioner_messages("what is the color of circle ?", 1), reasoner_messages("what is the", "the")):
        for message in messages:
            content = message["content"]
            parts = [content] if isinstance(content, str) else [part.get("text", "") for part in content]
            texts += [f"{message['role']}\n{part}" for part in parts]
    wrapped = byte_level(texts, vocab_size=2000)
    question, caption, tentative = HOLES
    messages = [*captioner_messages(question, 1), *tentative_messages(question, 1), *reasoner_messages(*HOLES[:2])]
    wrapped.add_tokens(["\\boxed{", "}", *fixed_sentences(messages)])
    if joint:
        wrapped.add_tokens(fixed_sentences(joint_messages(question, caption, tentative)))
    for word in WORDS:
        if len(wrapped.encode(f" {word}")) != 1:
            raise RuntimeError(f"{word!r} is not one token: {wrapped.tokenize(f' {word}')}")
    return wrapped
