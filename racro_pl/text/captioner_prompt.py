"""The captioner's two prompts: question and images in, a request for a description or for an answer out.

The wording is the reference implementation's (its training prompt for captions, its quick start's for answers). One
deviation: the sentence that asks for a short answer is taken out of the question, because beside "DO NOT try to
answer the question!", or beside "think step by step", it contradicts the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from racro_pl.types import Messages, RacroError

IMAGE_TAG = "<image>"
SHORT_ANSWER_SENTENCE = "Please try to answer the question with short words or phrases if possible."
SYSTEM = (
    "You are given an image and a relevant question. Based on the query, please describe the image in detail. "
    "Do not try to answer the question."
)
REQUEST = "Please describe the image. DO NOT try to answer the question!"
ANSWER_SYSTEM = "You are a helpful assistant."
ANSWER_REQUEST = r"Please think step by step. The final answer MUST BE put in \boxed{}."


class PromptError(RacroError):
    """A question whose text and images do not fit together."""


def captioner_messages(text: str, image_count: int) -> Messages:
    """The chat that asks the captioner for a caption of a question's images.

    Images stand where the question's ``<image>`` tags are; without tags, all of them stand before the text.

    Returns:
        A system and a user message whose contents are lists of ``{"type": "image"}`` and
        ``{"type": "text", "text": ...}`` parts; no text part is empty.

    Raises:
        PromptError: the text has tags, but not as many as there are images.
    """
    return _messages(SYSTEM, f"Question: {_without_short_answer(text)}\n{REQUEST}", image_count)


def tentative_messages(text: str, image_count: int) -> Messages:
    """The chat that asks the captioner itself for an answer: the *tentative* response of the paper's inference.

    Arguments, result and errors are those of :func:`captioner_messages`.
    """
    return _messages(ANSWER_SYSTEM, f"{_without_short_answer(text)} {ANSWER_REQUEST}", image_count)


def with_image_urls(messages: Messages, urls: Iterable[str]) -> Messages:
    """A captioner's chat as OpenAI-compatible servers take it: the images, in their order, at these URLs."""
    following = iter(urls)

    def part(piece: dict[str, Any]) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": next(following)}} if piece["type"] == "image" else piece

    return [message | {"content": [part(piece) for piece in message["content"]]} for message in messages]


def _without_short_answer(text: str) -> str:
    return text.replace(SHORT_ANSWER_SENTENCE, "").rstrip()


def _messages(system: str, request: str, image_count: int) -> Messages:
    tags = request.count(IMAGE_TAG)
    if tags not in (0, image_count):
        raise PromptError(
            f"the question has {tags} {IMAGE_TAG} tags and {image_count} images; "
            "give one tag per image, or none to put all images before the text"
        )
    if not tags:
        request = IMAGE_TAG * image_count + request
    parts: list[dict[str, Any]] = []
    for index, piece in enumerate(request.split(IMAGE_TAG)):
        if index:
            parts.append({"type": "image"})
        if piece:
            parts.append({"type": "text", "text": piece})
    return [
        {"role": "system", "content": [{"type": "text", "text": system}]},
        {"role": "user", "content": parts},
    ]
