"""An event loop in a thread of its own, with the connections to one server: calls from code that is not async."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from racro_pl.serving.chat_client import ChatClient, Fault


class ServerCalls:
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
        self.url = url
        self.where = url if uds is None else f"unix:{uds}"
        """The server's address, for messages."""
        self.deadline_s = deadline_s
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(concurrency)
        self._client = ChatClient(url, api_key, attempts, attempt_s, 0.5, max_body_bytes, uds=uds)
        # A daemon: a run that ends by an exception must not wait for the network.
        self._thread = threading.Thread(target=self._loop.run_forever, name="rollout-http", daemon=True)
        self._thread.start()

    def submit(self, path: str, payload: dict[str, Any]) -> Future[Any]:
        """Begin a POST; the future holds the decoded response, or a :class:`Fault`."""
        work = self._call("POST", path, payload, plain=False, limit_s=self.deadline_s)
        return asyncio.run_coroutine_threadsafe(work, self._loop)

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
        work = self._call(method, path, payload, plain, min(limit_s, self.deadline_s))
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _call(self, method: str, path: str, payload: dict[str, Any] | None, plain: bool, limit_s: float) -> Any:
        async with self._slots:
            deadline = time.monotonic() + limit_s
            return await self._client.call(method, path, payload, deadline, plain=plain)

    def close(self) -> None:
        """Cancel what is under way, then end the loop and its thread."""
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut_down(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()


__all__ = ["Fault", "ServerCalls"]
