"""A captioner's thoughts, apart from its caption: the reasoner must never read the captioner's own solution."""

from __future__ import annotations

from racro_pl.text.answers import THINK_CLOSE, THINK_OPEN, visible_text

PROMPT_END_TOKENS = 8
"""Tokens at a prompt's end that hold a tag of thoughts, if it ends with one, whatever the tokenizer."""


def without_thoughts(text: str) -> str:
    r"""What is left of a caption without its thoughts; one that holds only a thought (cut off, say) is empty.

    Example:
        >>> without_thoughts("<think>Red? Yes.</think>\n\nA red square."), without_thoughts("<think>Red? Y")
        ('A red square.', '')
        >>> without_thoughts(" A red square.")
        ' A red square.'
    """
    return visible_text(text).strip() if has_thoughts(text) else text


def has_thoughts(text: str) -> bool:
    """Whether a text holds a tag of thoughts."""
    return THINK_OPEN in text or THINK_CLOSE in text


def is_only_thoughts(text: str) -> bool:
    """Whether a text says something, and all of it in thoughts."""
    return has_thoughts(text) and not without_thoughts(text)


def mark_opening(text: str, prompt_end: str) -> str:
    """A model's text, with the tag that its prompt has opened for it in front.

    Chat templates of thinking models end the prompt with ``<think>``, so that the tag is not in what the model writes;
    cut off in its thought, it would pass for a caption.

    Example:
        >>> mark_opening("Red? Y", "<|im_start|>assistant\\n<think>\\n")
        '<think>Red? Y'
    """
    return THINK_OPEN + text if prompt_end.rstrip().endswith(THINK_OPEN) else text
