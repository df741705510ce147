"""The chat formats of the real model families, in minimal templates and tokenizers of our own.

Only the formats are theirs: names and order of the special tokens, what a template writes before the answer, and what
its switches change. Vocabularies are a few hundred bytes and pairs.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CONTENT = (
    "{% macro content(message) %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endmacro %}"
)
TURNS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ content(message) }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN2_5_VL = (
    CONTENT
    + "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    + TURNS
)
"""ChatML with images; a chat without a system message gets one."""
QWEN3_VL = CONTENT + TURNS
"""ChatML with images; no system message of its own."""
QWEN3 = (
    CONTENT
    + TURNS
    + "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
    + "<think>\n\n</think>\n\n{% endif %}"
)
"""ChatML; thoughts are on unless ``enable_thinking`` is false, and then an empty thought opens the answer."""
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
R1_DISTILL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content }}"
    "{% elif message.role == 'user' %}<｜User｜>{{ message.content }}"
    "{% else %}<｜Assistant｜>{{ message.content.split('</think>')[-1] }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)
"""The template itself opens the thought, so an answer has only its end."""


def r1_tokenizer() -> PreTrainedTokenizerFast:
    """As R1's: it writes its own first token, before which the template writes one too."""
    tokenizer = _tokenizer([BOS, EOS, "<｜User｜>", "<｜Assistant｜>"])
    first = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, first)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=EOS, chat_template=R1_DISTILL
    )


def qwen3_tokenizer() -> PreTrainedTokenizerFast:
    """As Qwen3's."""
    tokenizer = _tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=QWEN3
    )


def _tokenizer(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(["."], trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet))
    # One token each, but not special: decoding keeps them.
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in ("<think>", "</think>")])
    return tokenizer


def use_template(folder: Path, template: str) -> None:
    """Give a saved processor another chat template."""
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
