"""A small OpenAI-compatible server that misbehaves on request. For provoking faults; it reasons about nothing.

In a process of its own, misbehaving at random:

    python -m tests.fakes.reasoner_server SEED SHARE_OF_FAULTS

It prints its URL and serves until its standard input closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import json
import random
import sys
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any

ANSWER = r"It says so. \boxed{42}"
Chat = list[dict[str, Any]]
SOAK_FAULTS = (
    "hang", "drip", "drop", "cut", "no http", "429 0", "429 1e9", "429 3600", "500", "503", "400", "garbage", "nested",
    "empty choices", "nan content", "huge", "huge headers", "gzip", "wrong model", "redirect", "empty",
)  # fmt: skip


class FaultServer:
    """Serves ``/v1/models``, ``/health`` and ``/v1/chat/completions`` on a free port of 127.0.0.1.

    Args:
        script: what becomes of the first chat request, the second, ...; the last entry holds for all further ones.
            Or a function of the chat's messages. ``ok``, ``hang``, ``drip``, ``drop``, ``cut``, ``no http``, an HTTP
            status (``500``, ``400``, ...), ``429 VALUE`` (of Retry-After), ``huge headers``, ``endless headers``,
            ``redirect`` (to ``elsewhere``), ``gzip``, ``wrong model``, or a name in ``_body``.
        models: names under ``/v1/models``.
        context: their ``max_model_len``.
        listing: what becomes of ``/v1/models``: ``ok``, ``hang``, ``404`` or ``garbage``.
        answer: text for a chat's messages.
        delay_s: wait before an ``ok`` answer.
        together: ``ok`` answers wait until so many chats have been in flight at once.
    """

    def __init__(
        self,
        script: Sequence[str] | Callable[[Chat], str] = ("ok",),
        models: Sequence[str] = ("tiny",),
        context: int | None = None,
        listing: str = "ok",
        answer: Callable[[Chat], str] = lambda messages: ANSWER,
        delay_s: float = 0.0,
        together: int = 1,
    ) -> None:
        self.script = script
        self.models = list(models)
        self.context = context
        self.listing = listing
        self.answer = answer
        self.delay_s = delay_s
        self.together = together
        self.elsewhere = "http://127.0.0.1:9/v1"
        self.chats: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = 0
        self.most_in_flight = 0

    def __enter__(self) -> FaultServer:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listen(0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def _listen(self, port: int) -> None:
        opening = asyncio.start_server(self._serve, "127.0.0.1", port, backlog=512)
        self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result(10)

    def go_away(self) -> None:
        """Hang up, and refuse connections from now on."""
        self._stop()

    def come_back(self) -> None:
        """Listen on the same port again."""
        self._listen(self.port)

    def _stop(self) -> None:
        async def stop() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request_line := await reader.readline():
                headers: dict[str, str] = {}
                while (line := (await reader.readline()).strip()) != b"":
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.headers.append(headers)
                await self._route(request_line.split()[1].decode(), body, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _route(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        if path == "/health":
            return await _send(writer, 200, "")
        if path == "/v1/models":
            entries = [{"id": name} | ({"max_model_len": self.context} if self.context else {}) for name in self.models]
            return await self._misbehave(self.listing, writer, json.dumps({"object": "list", "data": entries}))
        if path != "/v1/chat/completions":
            return await _send(writer, 404, "no such page")
        chat = json.loads(body)
        if callable(self.script):
            mode = self.script(chat["messages"])
        else:
            mode = self.script[min(len(self.chats), len(self.script) - 1)]
        self.chats.append(chat)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            while mode == "ok" and self.most_in_flight < self.together:
                await asyncio.sleep(0.01)
            if chat["model"] not in self.models:
                mode = "404"
            name = "another" if mode == "wrong model" else chat["model"]
            await self._misbehave(mode, writer, _completion(self.answer(chat["messages"]), name))
        finally:
            self.in_flight -= 1
        return None

    async def _misbehave(self, mode: str, writer: asyncio.StreamWriter, good: str) -> None:
        error = json.dumps({"error": {"message": f"told to fail with {mode}"}})
        if mode in ("ok", "wrong model"):
            await asyncio.sleep(self.delay_s)
            await _send(writer, 200, good)
        elif mode == "hang":
            await asyncio.sleep(3600)
        elif mode == "drop":
            writer.transport.abort()
        elif mode == "drip":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            for _ in range(100_000):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        elif mode == "cut":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + good[:20].encode())
            await writer.drain()
            writer.transport.abort()
        elif mode == "no http":
            writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
            await writer.drain()
        elif mode == "huge headers":
            await _send(writer, 200, good, "".join(f"X-{n}: {'x' * 1000}\r\n" for n in range(1000)))
        elif mode == "endless headers":
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                writer.write(b"X-More: 1\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        elif mode == "redirect":
            await _send(writer, 307, "", f"Location: {self.elsewhere}/chat/completions\r\n")
        elif mode == "gzip":
            await _send(writer, 200, bomb(), "Content-Encoding: gzip\r\n")
        elif mode.startswith("429 "):
            await _send(writer, 429, error, f"Retry-After: {mode[4:]}\r\n")
        elif mode.isdecimal():
            await _send(writer, int(mode), error)
        else:
            await _send(writer, 200, _body(mode, good))


def _completion(text: str, model: str) -> str:
    return json.dumps({"model": model, "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]})


def _body(mode: str, good: str) -> str:
    """A response of status 200 that is not what it should be. ``odd numbers`` is the good one, with such beside it."""
    message = '{"choices": [{"index": NaN, "message": %s}], "usage": {"total_tokens": Infinity}}'
    return {
        "garbage": "<html>welcome</html>",
        "empty": "",
        "null": "null",
        "nested": "[" * 1_000_000,
        "long number": "1" * 1_000_000,
        "empty choices": '{"choices": []}',
        "null content": message % '{"content": null}',
        "nan content": message % '{"content": NaN}',
        "infinite message": message % "Infinity",
        "odd numbers": good[:-1] + ', "usage": {"total_tokens": Infinity, "cost": NaN, "n": 1e999}}',
        "thoughts": message % r'{"reasoning_content": "\\boxed{7}?", "content": "\\boxed{42}"}',
        "huge": message % ('{"content": "%s"}' % ("x" * 10_000_000)),
    }[mode]


async def _send(writer: asyncio.StreamWriter, status: int, body: str | bytes, headers: str = "") -> None:
    data = body.encode() if isinstance(body, str) else body
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
    writer.write(head.encode() + data)
    await writer.drain()


@functools.cache
def bomb() -> bytes:
    """100 kB that unpack to 100 MB."""
    return gzip.compress(bytes(100_000_000))


def by_caption(prompt: str) -> str:
    """Right for about half of all captions, and always the same for one caption."""
    return r"\boxed{red}" if zlib.crc32(prompt.encode()) % 2 else r"\boxed{blue}"


def main(seed: str, share: str) -> None:
    generator = random.Random(int(seed))

    def script(chat: Chat) -> str:
        return generator.choice(SOAK_FAULTS) if generator.random() < float(share) else "ok"

    with FaultServer(script, answer=lambda chat: by_caption(chat[-1]["content"])) as server:
        server.chats = server.headers = _Forgetful()
        print(server.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()


class _Forgetful(list[Any]):
    def append(self, item: Any) -> None:
        """A server that runs for long keeps nothing."""


if __name__ == "__main__":
    main(*sys.argv[1:])
