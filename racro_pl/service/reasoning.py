"""The reasoner, asked by the service: text as it comes from a server, at once from a model in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import httpx

from racro_pl.reward import HttpReasoner, Reasoner, Reply
from racro_pl.service.errors import ServiceError
from racro_pl.serving.replies import BREAKS, CUT, server_error
from racro_pl.terminal import get_logger
from racro_pl.text.printable import printable
from racro_pl.types import Messages

LONGEST_ANSWER = 2_000_000
"""Bytes of a streamed answer; more is cut off with an error."""


@dataclass(frozen=True)
class Piece:
    """A part of an answer."""

    text: str
    finish: str = ""
    """``stop`` or ``length`` in the last piece of an answer, as OpenAI's ``finish_reason``."""


async def answer(reasoner: Reasoner, chat: Messages, threads: Executor) -> AsyncGenerator[Piece]:
    """The pieces of one answer. Closing the iterator, or cancelling, ends a server's request.

    Args:
        threads: where a model in this process is waited for.

    Raises:
        ServiceError: status 502: there is no answer, or it broke off.
    """
    if isinstance(reasoner, HttpReasoner):
        async for piece in _streamed(reasoner, chat):
            yield piece
        return
    future = reasoner.submit([chat])[0]
    try:
        # A model in this process computes on the thread that reads.
        reply = await asyncio.get_running_loop().run_in_executor(threads, future.result)
    except Exception as error:  # such as a card's memory that has run out
        reply = Reply(error=f"{type(error).__name__}: {error}")
    if reply.text is None:
        # The clients learn no more than that there is none.
        get_logger(__name__).error("the reasoner gave no answer: %s", reply.error)
        raise ServiceError(502, "the reasoner gave no answer", "reasoner")
    yield Piece(reply.text, "length" if reply.truncated else "stop")


async def _streamed(reasoner: HttpReasoner, chat: Messages) -> AsyncGenerator[Piece]:
    client = reasoner.async_client()
    # Escaped to ASCII: a captioner's text may hold lone surrogates, which are not UTF-8.
    body = json.dumps(reasoner.request_body(chat) | {"stream": True}).encode()
    any_text, finish = False, ""
    try:
        async with client, client.stream("POST", "chat/completions", content=body) as response:
            if response.status_code != 200:
                raise ServiceError(502, f"the reasoner answered with status {response.status_code}", "reasoner")
            async for line in _lines(response):
                piece = _piece(line)
                any_text = any_text or bool(piece.text)
                finish = finish or piece.finish
                if piece.text:
                    yield Piece(piece.text)
    except httpx.HTTPError as error:
        get_logger(__name__).error("the reasoner is gone: %s: %s", type(error).__name__, error)
        raise ServiceError(502, "the reasoner is gone", "reasoner") from error
    if not finish:  # a connection that is closed looks like an end to HTTP/1.0
        raise ServiceError(502, "the reasoner's answer broke off", "reasoner")
    if not any_text:
        raise ServiceError(502, "the reasoner gave no answer", "reasoner")
    yield Piece("", finish)


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes]:
    """The lines of an event stream. They end at line feeds: JSON may hold every other separator as it is."""
    received = 0
    begun: list[bytes] = []
    async for chunk in response.aiter_bytes():
        for number, part in enumerate(chunk.split(b"\n")):
            if number:  # a line feed stood before it
                yield b"".join(begun)
                begun = []
            begun.append(part)
            received += len(part)
            if received > LONGEST_ANSWER:
                raise ServiceError(502, "the reasoner's answer does not end", "reasoner")
    yield b"".join(begun)


def _piece(line: bytes) -> Piece:
    """What one server-sent event holds; empty for events without text or end (roles, thoughts).

    Raises:
        ServiceError: status 502: the event is broken, or says that the answer is.
    """
    data = line.removeprefix(b"data:").strip()
    if data == line.strip():
        return Piece("")
    if data == b"[DONE]":
        return Piece("", "stop")
    try:
        event: Any = json.loads(data)
        choice = event["choices"][0] if event.get("choices") else {}
        text, finish = (choice.get("delta") or {}).get("content"), choice.get("finish_reason")
        error = event.get("error") or choice.get("error")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise ServiceError(502, "the reasoner's stream is broken", "reasoner") from None
    if error or finish in BREAKS:
        said = server_error(error) if error else f"finish_reason {finish!r}"
        get_logger(__name__).error("the reasoner's answer broke off: %s", printable(said[:200]))
        raise ServiceError(502, "the reasoner's answer broke off", "reasoner")
    ended = ("length" if finish in CUT else "stop") if isinstance(finish, str) and finish else ""
    return Piece(text if isinstance(text, str) else "", ended)
