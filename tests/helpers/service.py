"""The service on a free port of this machine, with a captioner and a reasoner that a test controls."""

from __future__ import annotations

import base64
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from PIL import Image

from racro_pl.evaluation.writers import Task, Writer, Written
from racro_pl.pipeline import Mode
from racro_pl.reward.reasoner import Reasoner, Reply
from racro_pl.service.app import Parts, build_app
from racro_pl.service.captions import CaptionBatcher
from racro_pl.service.decoding import ImageDecoder
from racro_pl.service.eyes import Eyes
from racro_pl.service.limits import Limits
from racro_pl.service.server import config
from racro_pl.types import Messages, Question

LIMIT_S = 100.0
"""Who waits longer hangs."""


class SizeWriter(Writer):
    """Captions tell the first image's size, the question and the task: what was asked shows in what is answered.

    Args:
        ready: what is asked for is written when this is set.
    """

    def __init__(self, ready: threading.Event | None = None) -> None:
        self.ready = ready
        self.batches: list[int] = []
        self.closed = False
        self.error: Exception | None = None

    def probe(self) -> None: ...

    def check(self) -> None: ...

    def write(self, work: Sequence[tuple[Question, Task]]) -> Iterator[Written]:
        self.batches.append(len(work))
        if self.ready is not None:
            self.ready.wait(LIMIT_S)
        if self.error is not None:
            raise self.error
        for question, task in work:
            with Image.open(io.BytesIO(question.images[0].data or b"")) as image:
                size = f"{image.width} x {image.height}"
            text = f"{len(question.images)} of {size} for {question.text}"
            yield Written(question, task, f"\\boxed{{{size}}}" if task == "tentative" else text)

    def close(self) -> None:
        self.closed = True


class EchoReasoner(Reasoner):
    """Answers with the last message that it got; notes all chats."""

    identity = "echo"
    deterministic = True

    def __init__(self, error: str | None = None) -> None:
        self.error = error
        self.chats: list[Messages] = []

    def check(self) -> None: ...

    def submit(self, prompts: Sequence[Messages]) -> list[Future[Reply]]:
        futures: list[Future[Reply]] = []
        for chat in prompts:
            self.chats.append(chat)
            future: Future[Reply] = Future()
            future.set_result(Reply(error=self.error) if self.error else Reply(text=f"read: {chat[-1]['content']}"))
            futures.append(future)
        return futures

    def close(self) -> None: ...


def wait_until(condition: Callable[[], bool]) -> None:
    """For what happens sooner or later, on a busy machine too."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, threading.enumerate()
        time.sleep(0.02)


@dataclass
class Service:
    """A running one."""

    url: str
    port: int
    client: httpx.Client
    batcher: CaptionBatcher

    def wait_until_in_line(self, working: int, waiting: int = 0) -> None:
        """Until so many requests are being answered, and so many wait for that."""
        wait_until(lambda: {f"racro_working {working}.0", f"racro_waiting {waiting}.0"} <= self._metrics())

    def _metrics(self) -> set[str]:
        return set(self.client.get("/metrics").text.splitlines())

    def chat(self, *messages: dict[str, Any], **more: Any) -> httpx.Response:
        """One request for a chat completion."""
        return self.client.post("/v1/chat/completions", json={"messages": list(messages), **more})


@contextmanager
def running_service(
    writer: Writer,
    reasoner: Reasoner,
    mode: Mode = "caption",
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    key: str | None = None,
) -> Iterator[Service]:
    """Starts it and stops it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    batcher, decoder = CaptionBatcher(writer), ImageDecoder(limits)
    parts = Parts(Eyes(batcher, decoder, mode, limits), batcher, decoder, reasoner, "racro")
    app = build_app(parts, limits, frozenset({f"127.0.0.1:{port}", f"localhost:{port}"}), key)
    server = uvicorn.Server(config(app, limits))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=LIMIT_S, trust_env=False
        ) as client:
            yield Service(f"http://127.0.0.1:{port}/v1", port, client, batcher)
    finally:
        server.should_exit = True
        thread.join(LIMIT_S)
        assert not thread.is_alive()


def picture(width: int = 8, height: int = 6, format: str = "PNG") -> bytes:
    """An encoded image."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, format)
    return file.getvalue()


def data_url(data: bytes, kind: str = "png") -> str:
    """An image as clients send it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def asking(text: str, *images: bytes) -> dict[str, Any]:
    """A user's message."""
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def request_head(port: int, length: int) -> bytes:
    """The head of a request for a chat completion, for those who send its body themselves."""
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()
