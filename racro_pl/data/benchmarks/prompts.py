"""Question texts, as the reference implementation's evaluation builds them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from racro_pl.text.captioner_prompt import IMAGE_TAG
from racro_pl.text.choices import LETTERS

REQUEST = "Please select the correct answer from the options above."
CHINESE_REQUEST = "请直接回答选项字母。"
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def without_tags(text: str) -> str:
    """A text without ``<image>`` tags: all images stand before it. ``<image 1>`` and the like are names and stay."""
    return text.replace(IMAGE_TAG, "").strip()


def multiple_choice_text(question: str, options: Sequence[str], hint: str = "", chinese: bool = True) -> str:
    """The text of a question of WeMath or MMMU: hint, question, options, and the request to select one.

    Args:
        question: the bare question.
        options: texts of the options A, B, ...; without any, there is no request either.
        hint: stands before the question.
        chinese: whether a text with Chinese characters gets the request in Chinese.
    """
    lines = [f"Hint: {hint}"] if hint else []
    lines.append(f"Question: {question}")
    if options:
        lines.append("Options:")
        lines += [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
        lines.append(CHINESE_REQUEST if chinese and _CHINESE.search("\n".join(lines)) else REQUEST)
    return without_tags("\n".join(lines))
