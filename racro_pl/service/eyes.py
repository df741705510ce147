"""Conversations with images, as a text-only reasoner reads them: every image by its caption."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from racro_pl import pipeline
from racro_pl.service.captions import CaptionBatcher
from racro_pl.service.decoding import ImageDecoder
from racro_pl.service.errors import ServiceError, bad_request
from racro_pl.service.fetching import ImageFetcher
from racro_pl.service.limits import Limits
from racro_pl.service.requests import Turn
from racro_pl.terminal import get_logger
from racro_pl.text.captioner_prompt import IMAGE_TAG
from racro_pl.text.printable import printable
from racro_pl.text.reasoner_prompt import SYSTEM
from racro_pl.types import Messages

NO_TEXT = "Describe the image."
"""The question of a message that holds images alone, in a conversation in which nothing was asked yet."""


@dataclass(frozen=True)
class Seen:
    """What the captioner wrote for one message with images."""

    message: int
    question: str
    caption: str
    tentative: str | None

    def record(self) -> dict[str, Any]:
        """For the response."""
        return {"message": self.message, "question": self.question, "caption": self.caption,
                "tentative_answer": self.tentative}  # fmt: skip


class Eyes:
    """Writes captions for the images of a conversation, and the chat that the reasoner gets.

    A message's images are described for that message's text, and keep that caption for the rest of the conversation:
    clients send it whole every time, so captions are remembered by image and text.

    Args:
        mode: what the reasoner reads of a message with images.
        limits: how many captions are remembered, and what an image may be.
    """

    def __init__(self, captioner: CaptionBatcher, decoder: ImageDecoder, mode: pipeline.Mode, limits: Limits) -> None:
        self._captioner = captioner
        self._decoder = decoder
        self._mode = mode
        self._limits = limits
        self._fetcher = ImageFetcher(limits)
        self._memory: OrderedDict[str, tuple[str, str | None]] = OrderedDict()

    async def see(self, turns: Sequence[Turn]) -> list[Seen]:
        """Captions of all messages with images, in their order.

        Raises:
            ServiceError: an image cannot be read or opened (400), or the captioner failed (502).
        """
        seen = []
        asked = NO_TEXT
        for index, turn in enumerate(turns):
            if turn.role != "user":
                continue
            text = turn.text.replace(IMAGE_TAG, "").strip()
            asked = text or asked
            if turn.images:
                caption, tentative = await self._remembered(turn.images, asked, f"messages[{index}]")
                seen.append(Seen(index, asked, caption, tentative))
        return seen

    async def _remembered(self, images: tuple[bytes | str, ...], question: str, where: str) -> tuple[str, str | None]:
        digest = hashlib.sha256(question.encode("utf-8", "replace"))
        for image in images:
            digest.update(hashlib.sha256(image if isinstance(image, bytes) else image.encode()).digest())
        key = digest.hexdigest()
        if key not in self._memory:
            self._memory[key] = await self._look(images, question, where)
            while len(self._memory) > self._limits.remembered_captions:
                self._memory.popitem(last=False)
        self._memory.move_to_end(key)
        return self._memory[key]

    async def _look(self, images: tuple[bytes | str, ...], question: str, where: str) -> tuple[str, str | None]:
        plain = []
        for image in images:
            data = image if isinstance(image, bytes) else await self._fetcher.fetch(image, where)
            plain.append(await self._decoder.decode(data, where))
        writing = [self._captioner.write(question, plain, "caption")]
        if self._mode == "caption+tentative":
            writing.append(self._captioner.write(question, plain, "tentative"))
        try:
            written = await asyncio.gather(*writing)
        except Exception as error:
            raise ServiceError(502, "the captioner failed", "captioner") from error
        for each in written:
            if each.text is None and not each.refused:
                # The clients learn no more than that it failed.
                get_logger(__name__).error("the captioner failed: %s", printable(each.error or ""))
                raise ServiceError(502, "the captioner failed", "captioner")
        if any(each.text is None for each in written):
            raise bad_request("the captioner cannot be asked about this message", "captioner", where)
        texts = [each.text or "" for each in written]
        return texts[0], texts[1] if len(texts) > 1 else None


def reasoner_chat(turns: Sequence[Turn], seen: Sequence[Seen]) -> Messages:
    """The conversation without images: what the training and ``racro-pl test`` ask, where a message has images.

    A conversation without images is passed on as it is.
    """
    by_message = {each.message: each for each in seen}
    chat: Messages = []
    if seen and turns[0].role != "system":
        chat.append({"role": "system", "content": SYSTEM})
    for index, turn in enumerate(turns):
        content = turn.text
        if (each := by_message.get(index)) is not None:
            content = pipeline.reasoner_chat(each.question, each.caption, each.tentative)[-1]["content"]
        chat.append({"role": turn.role, "content": content})
    return chat
