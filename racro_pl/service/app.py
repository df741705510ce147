"""The routes: chat completions, the list of models, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import prometheus_client
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from racro_pl.reward import Reasoner
from racro_pl.service import reasoning
from racro_pl.service.captions import CaptionBatcher
from racro_pl.service.decoding import ImageDecoder
from racro_pl.service.errors import ServiceError
from racro_pl.service.eyes import Eyes, Seen, reasoner_chat
from racro_pl.service.guard import Guard, read_body
from racro_pl.service.limits import Limits
from racro_pl.service.queue import Admission, Place
from racro_pl.service.reasoning import Piece
from racro_pl.service.requests import ChatRequest, parse_request

LOG = logging.getLogger("racro_pl.service")
POLL_S = 0.1
"""How often a waiting request looks whether its client is still there."""


HANDLED = (ServiceError, HTTPException)
"""What ends a request with an error of OpenAI's form."""


@dataclass(frozen=True)
class Parts:
    """What answers."""

    eyes: Eyes
    captioner: CaptionBatcher
    decoder: ImageDecoder
    reasoner: Reasoner
    model: str
    """Name under which the pair is served."""


def build_app(parts: Parts, limits: Limits, hosts: frozenset[str], key: str | None) -> ASGIApp:
    """The whole service as an ASGI application.

    Args:
        parts: captioner and reasoner, checked already.
        hosts: the ``Host`` headers that are served.
        key: asked of clients; None for none.
    """
    service = _Service(parts, limits)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await parts.captioner.close()
        parts.decoder.close()
        await asyncio.to_thread(parts.reasoner.close)
        service.close()

    async def on_error(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):  # no such route, or another method than its own
            error = ServiceError(error.status_code, error.detail, "route", headers=dict(error.headers or {}))
        assert isinstance(error, ServiceError)
        return JSONResponse(error.body(), error.status, headers=error.headers)

    routes = [
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/models", service.models),
        Route("/health", service.health),
        Route("/metrics", service.metrics),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=dict.fromkeys(HANDLED, on_error))
    return Guard(app, hosts, key, limits)


class _Service:
    """The routes' methods and what they count."""

    def __init__(self, parts: Parts, limits: Limits) -> None:
        self._parts = parts
        self._limits = limits
        self._admission = Admission(limits)
        # Not the loop's own threads, which read the requests: those would wait for answers.
        self._threads = ThreadPoolExecutor(limits.working, "reasoner")
        self._registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter(
            "racro_requests", "Chat completions by status", ["status"], registry=self._registry
        )
        self._seconds = prometheus_client.Histogram(
            "racro_seconds", "Seconds per part of an answer", ["part"], registry=self._registry,
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
        )  # fmt: skip
        for name, what, value in (
            ("racro_working", "Requests being answered", lambda: self._admission.working),
            ("racro_waiting", "Requests in line", lambda: self._admission.waiting),
            ("racro_caption_batches", "Batches of captions written", lambda: parts.captioner.batches),
            ("racro_captions", "Captions and tentative answers written", lambda: parts.captioner.texts),
        ):
            prometheus_client.Gauge(name, what, registry=self._registry).set_function(value)

    def close(self) -> None:
        """Have no thread wait for answers any more."""
        self._threads.shutdown(wait=False)

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        return Response(prometheus_client.generate_latest(self._registry), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        entry = {"id": self._parts.model, "object": "model", "created": 0, "owned_by": "racro_pl"}
        return JSONResponse({"object": "list", "data": [entry]})

    async def chat(self, request: Request) -> Response:
        """Answer one chat completion. A request keeps its place in line until its last piece is sent."""
        started = asyncio.get_running_loop().time()
        place = self._admission.enter()
        ended = partial(self._end, request, place, started)
        try:
            body = await read_body(request.receive, self._limits)
            deadline = started + self._limits.deadline_s
            response = await _unless_gone(request, self._respond(request, body, place, deadline))
        except ServiceError as error:
            ended(error.status)
            raise
        except Exception as error:
            ended(500)
            LOG.exception("%s failed", request.state.request_id)
            # Not raised as it is: uvicorn would hang up on a client that may use the connection again.
            raise ServiceError(500, "the service failed", "internal") from error
        except BaseException:
            ended(500)
            raise
        if isinstance(response, _Stream):
            response.on_end = ended
        else:
            ended(response.status_code)
        return response

    async def _respond(self, request: Request, body: bytes, place: Place, deadline: float) -> Response:
        try:
            async with asyncio.timeout_at(deadline):
                asked = await asyncio.to_thread(parse_request, body, self._limits)
                self._check_model(asked)
                await place.turn()
                with self._seconds.labels("captions").time():
                    seen = await self._parts.eyes.see(asked.turns)
                pieces = _until(deadline, self._pieces(asked, seen))
                if asked.stream:
                    return _Stream(self._events(request, asked, seen, pieces))
                whole = [piece async for piece in pieces]
        except TimeoutError:
            raise _too_late() from None
        # Escaped to ASCII: a model's text may hold half an emoji, which is not UTF-8.
        return Response(json.dumps(self._completion(request, asked, seen, whole)), media_type="application/json")

    def _check_model(self, asked: ChatRequest) -> None:
        if asked.model not in ("", self._parts.model):
            raise ServiceError(404, "no such model; GET /v1/models lists the one served", "model_not_found", "model")

    async def _pieces(self, asked: ChatRequest, seen: list[Seen]) -> AsyncGenerator[Piece]:
        with self._seconds.labels("reasoner").time():
            chat = reasoner_chat(asked.turns, seen)
            async for piece in reasoning.answer(self._parts.reasoner, chat, self._threads):
                yield piece

    def _completion(self, request: Request, asked: ChatRequest, seen: list[Seen], whole: list[Piece]) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(piece.text for piece in whole)}
        choice = {"index": 0, "message": message, "finish_reason": whole[-1].finish}
        return self._head(request, "chat.completion") | {"choices": [choice], "racro": _own_field(asked, seen)}

    def _head(self, request: Request, kind: str) -> dict[str, Any]:
        name = f"chatcmpl-{request.state.request_id}"
        return {"id": name, "object": kind, "created": int(time.time()), "model": self._parts.model}

    async def _events(
        self, request: Request, asked: ChatRequest, seen: list[Seen], pieces: AsyncGenerator[Piece]
    ) -> AsyncGenerator[bytes]:
        """Server-sent events. An error in the middle is an event of its own, then the stream ends."""
        head = self._head(request, "chat.completion.chunk")

        def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return _event(head | {"choices": [choice]} | more)

        async with contextlib.aclosing(pieces):
            yield event({"role": "assistant", "content": ""}, racro=_own_field(asked, seen))
            if asked.captions == "stream":
                for each in seen:
                    yield event({"content": f"> {' '.join(each.caption.split())}\n\n"})
            try:
                async for piece in pieces:
                    if piece.text:
                        yield event({"content": piece.text})
            except ServiceError as error:
                yield _event(error.body())
                return
            yield event({}, piece.finish)
            yield b"data: [DONE]\n\n"

    def _end(self, request: Request, place: Place, started: float, status: int) -> None:
        """Count a request, the first time that it ends."""
        if not place.leave():
            return
        self._requests.labels(str(status)).inc()
        seconds = asyncio.get_running_loop().time() - started
        LOG.info("%s %d %.3f s", request.state.request_id, status, seconds)


class _Stream(StreamingResponse):
    """A stream that says when it has ended, however it did: sent whole, broken off, or never begun."""

    on_end: Callable[[int], None]

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self.events = events

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.on_end(200)
            await self.events.aclose()


def _own_field(asked: ChatRequest, seen: list[Seen]) -> dict[str, Any]:
    return {"captions": [each.record() for each in seen], "unused_fields": list(asked.unused)}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


async def _until(deadline: float, pieces: AsyncGenerator[Piece]) -> AsyncGenerator[Piece]:
    """The pieces that come before the deadline, then an error. Sending them does not count."""
    async with contextlib.aclosing(pieces):
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    piece = await anext(pieces, None)
            except TimeoutError:
                raise _too_late() from None
            if piece is None:
                return
            yield piece


def _too_late() -> ServiceError:
    return ServiceError(504, "no answer before the deadline", "deadline")


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response, unless the client hangs up first: what was begun for it is cancelled then."""
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=POLL_S)
            if not task.done() and await request.is_disconnected():
                raise ServiceError(499, "the client has gone", "gone")
        return task.result()
    finally:
        task.cancel()
