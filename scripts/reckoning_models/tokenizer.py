"""A tokenizer in which every word of the reckoning world, with the space before it, is one token, and so is every
fixed sentence of the real prompts."""

from __future__ import annotations

from pathlib import Path

from figure_models.tokenizer import HOLES, byte_level, fixed_sentences
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from racro_pl.figure_world.world import COLORS, SHADES
from racro_pl.reckoning_world.world import EDGES, MOST_DOTS
from racro_pl.text.captioner_prompt import captioner_messages, tentative_messages
from racro_pl.text.reasoner_prompt import joint_messages, reasoner_messages

NUMBERS = tuple(f" {number}" for number in range(2 * MOST_DOTS + 1))
WORDS = (
    *(f" {word}" for word in (*COLORS, *SHADES, *EDGES, "background", "has", "is", "plus", "minus", "unknown")),
    *NUMBERS, " dot.", " dots.", ".", " \\boxed{",
)  # fmt: skip
ASKING = (
    "which has more dots,", " or", "how many dots do", " and", " have together", "how many more dots has", " than",
    "how many more dots do", " have", "?",
)  # fmt: skip
"""What questions say around the colours."""


def train_tokenizer(reasoner: bool) -> PreTrainedTokenizerFast:
    """Words, numbers and fixed sentences are added whole, so that no rule for splitting text can cut them.

    transformers gives the tokenizer of a Qwen2 folder Qwen2's own rule on loading, which splits a space off a digit.

    Args:
        reasoner: whether the sentences of the prompts that only reasoners read become tokens, or those of the
            captioner's.
    """
    wrapped = byte_level(["system", "user", "assistant"], vocab_size=300)
    question, caption, tentative = HOLES
    if reasoner:
        messages = [*reasoner_messages(question, caption), *joint_messages(question, caption, tentative)]
    else:
        messages = [*captioner_messages(question, 1), *tentative_messages(question, 1)]
    wrapped.add_tokens([*WORDS, *ASKING, "\\boxed{", "}", *fixed_sentences(messages)])
    return wrapped


def as_loaded(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, as users get it.

    Raises:
        RuntimeError: it is not the one that was saved: a word is no longer one token.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for word in WORDS:
        found = tokenizer.encode(word, add_special_tokens=False)
        if len(found) != 1 or tokenizer.decode(found) != word:
            raise RuntimeError(f"{word!r} is not one token once loaded: {found}, {tokenizer.decode(found)!r}")
    return tokenizer
