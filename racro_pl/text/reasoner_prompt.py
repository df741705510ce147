"""The reasoner's training prompt: a caption and a question in, text only.

The wording is the reference implementation's. One deviation: ``<image>`` tags are taken out of the question (the
reference sends them as literal text, though the reasoner sees no image).
"""

from __future__ import annotations

from racro_pl.text.captioner_prompt import IMAGE_TAG, SHORT_ANSWER_SENTENCE
from racro_pl.types import Messages

SYSTEM = "You are a helpful assistant."
ANSWER_FORMAT = r"Please think step by step. The final answer MUST BE put in \boxed{}."


def reasoner_question(text: str) -> str:
    """A question as the reasoner reads it: without image tags and without the request for a short answer."""
    return text.replace(IMAGE_TAG, "").replace(SHORT_ANSWER_SENTENCE, "").strip()


def reasoner_messages(question_text: str, caption: str) -> Messages:
    """The chat that asks the reasoner to answer a question from a caption alone."""
    content = (
        f"### The detailed caption of the provided image: {caption}"
        f"\n\n### Question: {reasoner_question(question_text)} {ANSWER_FORMAT}"
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
