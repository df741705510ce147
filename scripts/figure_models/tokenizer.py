"""A byte-level tokenizer in which every word of the figure world, and of the prompts' fixed text, is one token."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from racro_pl.figures.world import SHAPES, TYPES, VALUES
from racro_pl.text.captioner_prompt import captioner_messages
from racro_pl.text.reasoner_prompt import reasoner_messages

SPECIAL = ["endoftext", "im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad"]
SPECIAL = [f"<|{name}|>" for name in SPECIAL]
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


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Merges are learnt from the prompts and the words; the boxes are added whole, so an answer is one token."""
    texts = ["".join(f" {word}" for word in WORDS), " . ?", *WORDS]
    for messages in (captioner_messages("what is the color of circle ?", 1), reasoner_messages("what is the", "the")):
        for message in messages:
            content = message["content"]
            parts = [content] if isinstance(content, str) else [part.get("text", "") for part in content]
            texts += [f"{message['role']}\n{part}" for part in parts]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=1,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
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
    wrapped.add_tokens(["\\boxed{", "}"])
    for word in WORDS:
        if len(wrapped.encode(f" {word}")) != 1:
            raise RuntimeError(f"{word!r} is not one token: {wrapped.tokenize(f' {word}')}")
    return wrapped
