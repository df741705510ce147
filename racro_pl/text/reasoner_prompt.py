"""The reasoner's prompts, text only: a caption and a question in; at inference a tentative answer too.

The wording is the reference implementation's, down to its odd spaces. One deviation: ``<image>`` tags are taken out of
the question (the reference sends them as literal text, though the reasoner sees no image).
"""

from __future__ import annotations

from racro_pl.text.captioner_prompt import IMAGE_TAG, SHORT_ANSWER_SENTENCE
from racro_pl.types import Messages

SYSTEM = "You are a helpful assistant."
ANSWER_FORMAT = r"Please think step by step. The final answer MUST BE put in \boxed{}."
_JOINT_OPENING = (
    "In the following text, you will receive a detailed caption of an image and a relevant question. In addition, you "
    "will be provided with a tentative model response. You goal is to answer the question using these information."
    "    \n" + " " * 24
)
_JOINT_CAPTION_NOTE = "### Note that the caption might contain incorrect solutions, do not be misguided by them."
_JOINT_TENTATIVE_NOTE = (
    "### Note that the above tentative response might be inaccurate (due to calculation errors, incorrect "
    "logic/reasoning and so on), under such a case, please ignore it and give your own solutions. However, if you do "
    "not have enough evidence to show it is wrong, please output the tentative response."
)


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


def text_only_messages(question_text: str) -> Messages:
    """The chat that asks for an answer from the question alone, as the reference asks where there is no image."""
    content = f"{reasoner_question(question_text)}\n\n### {ANSWER_FORMAT}"
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


def joint_messages(question_text: str, caption: str, tentative: str) -> Messages:
    """The chat of the paper's inference: caption and tentative response, with notes on how far to trust each."""
    content = (
        f"{_JOINT_OPENING}\n### The detailed caption of the provided image: {caption}"
        f"\n\n{_JOINT_CAPTION_NOTE}"
        f"\n\n### A problem to be solved: {reasoner_question(question_text)}"
        f"\n\n### A tentative model response: {tentative}"
        f"\n \n{_JOINT_TENTATIVE_NOTE}"
        f"\n\n### {ANSWER_FORMAT}"
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
