"""The reasoner, asked by the service: text as it comes from a server, at once from a model in this process."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from typing import Any

import httpx

from racro_pl.reward import HttpReasoner, Reasoner
from racro_pl.service.errors import ServiceError
from racro_pl.terminal import get_logger
from racro_pl.types import Messages

LONGEST_ANSWER = 2_000_000
"""Bytes of a streamed answer; more is cut off with an error."""
_FINISHED = re.compile(r'"finish_reason"\s*:\s*"')


async def answer(reasoner: Reasoner, chat: Messages) -> AsyncGenerator[str]:
    """The pieces of one answer. Closing the iterator, or cancelling, ends a server's request.

    Raises:
        ServiceError: status 502: there is no answer, or it broke off.
    """
    if isinstance(reasoner, HttpReasoner):
        async for piece in _streamed(reasoner, chat):
            yield piece
        return
    future = reasoner.submit([chat])[0]
    # A model in this process computes on the thread that reads.
    reply = await asyncio.to_thread(future.result)
    if reply.text is None:
        # The clients learn no more than that there is none.
        get_logger(__name__).error("the reasoner gave no answer: %s", reply.error)
        raise ServiceError(502, "the reasoner gave no answer", "reasoner")
    yield reply.text


async def _streamed(reasoner: HttpReasoner, chat: Messages) -> AsyncGenerator[str]:
    client = reasoner.async_client()
    body = reasoner.request_body(chat) | {"stream": True}
    received = 0
    any_text = ended = False
    try:
        async with client, client.stream("POST", "chat/completions", json=body) as response:
            if response.status_code != 200:
                raise ServiceError(502, f"the reasoner answered with status {response.status_code}", "reasoner")
            async for line in response.aiter_lines():
                received += len(line)
                if received > LONGEST_ANSWER:
                    raise ServiceError(502, "the reasoner's answer does not end", "reasoner")
                piece = _piece(line)
                any_text = any_text or bool(piece)
                ended = ended or line[5:].strip() == "[DONE]" or _FINISHED.search(line) is not None
                if piece:
                    yield piece
    except httpx.HTTPError as error:
        get_logger(__name__).error("the reasoner is gone: %s: %s", type(error).__name__, error)
        raise ServiceError(502, "the reasoner is gone", "reasoner") from error
    if not ended:  # a connection that is closed looks like an end to HTTP/1.0
        raise ServiceError(502, "the reasoner's answer broke off", "reasoner")
    if not any_text:
        raise ServiceError(502, "the reasoner gave no answer", "reasoner")


def _piece(line: str) -> str:
    """The text in one server-sent event; empty for events without (roles, thoughts, the end)."""
    if not line.startswith("data:") or line[5:].strip() == "[DONE]":
        return ""
    try:
        event: Any = json.loads(line[5:])
        text = event["choices"][0]["delta"].get("content") if event.get("choices") else ""
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise ServiceError(502, "the reasoner's stream is broken", "reasoner") from None
    return text if isinstance(text, str) else ""
