"""A small OpenAI-compatible server that misbehaves on request. For provoking faults; it reasons about nothing."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

ANSWER = r"It says so. \boxed{42}"


class FaultServer:
    """Serves ``/v1/models``, ``/health`` and ``/v1/chat/completions`` on a free port of 127.0.0.1.

    Args:
        script: what becomes of the first chat request, the second, ...; the last entry holds for all further ones.
            ``ok``, ``hang``, ``drip``, ``429``, ``429 later``, ``500``, ``400``, ``404``, ``401``, ``garbage``,
            ``empty choices``, ``null content``, ``thoughts``, ``huge``, ``drop``.
        models: names under ``/v1/models``.
        context: their ``max_model_len``.
        listing: what becomes of ``/v1/models``: ``ok``, ``hang``, ``404`` or ``garbage``.
        answer: text for a chat's messages.
        delay_s: wait before an ``ok`` answer.
    """

    def __init__(
        self,
        script: Sequence[str] = ("ok",),
        models: Sequence[str] = ("tiny",),
        context: int | None = None,
        listing: str = "ok",
        answer: Callable[[list[dict[str, Any]]], str] = lambda messages: ANSWER,
        delay_s: float = 0.0,
    ) -> None:
        self.script = list(script)
        self.models = list(models)
        self.context = context
        self.listing = listing
        self.answer = answer
        self.delay_s = delay_s
        self.chats: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = 0
        self.most_in_flight = 0

    def __enter__(self) -> FaultServer:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        opening = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result(10)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        async def stop() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
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
        mode = self.script[min(len(self.chats), len(self.script) - 1)]
        self.chats.append(chat)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if chat["model"] not in self.models:
                mode = "404"
            await self._misbehave(mode, writer, _completion(self.answer(chat["messages"])))
        finally:
            self.in_flight -= 1
        return None

    async def _misbehave(self, mode: str, writer: asyncio.StreamWriter, good: str) -> None:
        error = json.dumps({"error": {"message": f"told to fail with {mode}"}})
        if mode == "ok":
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
        elif mode.startswith("429"):
            await _send(writer, 429, error, f"Retry-After: {3600 if mode == '429 later' else 1}\r\n")
        elif mode.isdecimal():
            await _send(writer, int(mode), error)
        else:
            bodies = {
                "garbage": "<html>welcome</html>",
                "empty choices": json.dumps({"choices": []}),
                "null content": json.dumps({"choices": [{"message": {"content": None}}]}),
                "thoughts": json.dumps(
                    {"choices": [{"message": {"reasoning_content": r"\boxed{7}?", "content": r"\boxed{42}"}}]}
                ),
                "huge": json.dumps({"choices": [{"message": {"content": "x" * 10_000_000}}]}),
            }
            await _send(writer, 200, bodies[mode])


def _completion(text: str) -> str:
    return json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]})


async def _send(writer: asyncio.StreamWriter, status: int, body: str, headers: str = "") -> None:
    data = body.encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
    writer.write(head.encode() + data)
    await writer.drain()
