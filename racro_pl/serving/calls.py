"""Calls to one server from code that is not async."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from racro_pl.serving.chat_client import ChatClient
from racro_pl.serving.loop_thread import LoopThread


class ServerCalls(LoopThread):
    """Calls to one OpenAI-compatible server, each bounded in time, attempts and bytes.

    Args:
        url: base URL, as ``http://127.0.0.1:8000/v1``.
        concurrency: calls in flight at once; the others wait in line, without a deadline of their own.
        deadline_s: seconds from a call's first attempt until it is given up.
        attempt_s: seconds for one attempt.
        attempts: most attempts per call.
        max_body_bytes: largest response that is read.
        uds: Unix socket on which the server listens; the host in ``url`` is then a mere name.
        api_key: sent as a bearer token; None sends none.
    """

    def __init__(
        self,
        url: str,
        concurrency: int,
        deadline_s: float,
        attempt_s: float,
        attempts: int,
        max_body_bytes: int,
        uds: Path | None = None,
        api_key: str | None = None,
    ) -> None:
        client = ChatClient(url, api_key, attempts, attempt_s, 0.5, max_body_bytes, uds=uds)
        super().__init__(client, "rollout-http")
        self.url = url
        self.where = url if uds is None else f"unix:{uds}"
        """The server's address, for messages."""
        self.deadline_s = deadline_s
        self._slots = asyncio.Semaphore(concurrency)

    def post(self, path: str, payload: dict[str, Any]) -> Future[Any]:
        """Begin a POST; the future holds the decoded response, or a :class:`Fault`."""
        return self.submit(self._call("POST", path, payload, plain=False, limit_s=self.deadline_s))

    def call(
        self,
        method: str,
        path: str,
        payload: dict[str, Any] | None = None,
        *,
        plain: bool = False,
        limit_s: float = float("inf"),
    ) -> Any:
        """A call whose response is waited for.

        Args:
            plain: the response is a text, not JSON.
            limit_s: seconds, where less than ``deadline_s`` has to do.

        Raises:
            Fault: it brought nothing.
        """
        return self.submit(self._call(method, path, payload, plain, min(limit_s, self.deadline_s))).result()

    async def _call(self, method: str, path: str, payload: dict[str, Any] | None, plain: bool, limit_s: float) -> Any:
        async with self._slots:
            deadline = time.monotonic() + limit_s
            return await self.client.call(method, path, payload, deadline, plain=plain)
