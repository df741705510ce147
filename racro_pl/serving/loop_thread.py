"""An event loop in a thread of its own, for code that is not async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from racro_pl.serving.chat_client import ChatClient

T = TypeVar("T")


class LoopThread:
    """The event loop of one client's connections.

    Args:
        client: the connections; closed with the loop.
    """

    def __init__(self, client: ChatClient, name: str) -> None:
        self.client = client
        self.loop = asyncio.new_event_loop()
        # A daemon: a run that ends by an exception must not wait for the network.
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin work on the loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        """Cancel all work, then end the loop and its thread."""
        self.submit(self._shut_down()).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _shut_down(self) -> None:
        # All tasks of the loop, those begun by other threads too.
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.client.close()
