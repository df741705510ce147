"""An event loop in a thread of its own, for code that is not async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

from racro_pl.serving.chat_client import ChatClient

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class LoopThread:
    """The event loop of one client's connections.

    Args:
        client: the connections; closed with the loop.
    """

    def __init__(self, client: ChatClient, name: str) -> None:
        self.client = client
        self.loop = _Loop()
        # A daemon: a run that ends by an exception must not wait for the network.
        self._thread = threading.Thread(target=_run, args=(self.loop,), name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin work on the loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        """Cancel all work, then end the loop and its thread."""
        self.submit(self._shut_down()).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    async def _shut_down(self) -> None:
        await _end_tasks()
        await self.client.close()


class _Loop(asyncio.SelectorEventLoop):
    """A loop that either runs what another thread gives it, or refuses it. Python's own, as it closes, may lose it."""

    def __init__(self) -> None:
        super().__init__()
        self._gate = threading.RLock()
        self._ended_by: int | None = None
        """The thread in which it ended, whose own calls still run."""

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        with self._gate:
            if self._ended_by not in (None, threading.get_ident()):
                raise RuntimeError("Event loop is closed")
            return super().call_soon_threadsafe(callback, *args, context=context)

    def refuse(self) -> None:
        """Take nothing more from other threads."""
        with self._gate:
            self._ended_by = threading.get_ident()


def _run(loop: _Loop) -> None:
    """A loop's whole life. It ends here, for the thread that closes it may be running a loop of its own (notebooks)."""
    loop.run_forever()
    loop.refuse()
    loop.run_until_complete(_end_tasks())  # what came while it was shut down
    loop.close()


async def _end_tasks() -> None:
    """Cancel all tasks of the loop, those begun by other threads too."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    await asyncio.sleep(0)  # all of these have begun after it; one that is cancelled before it begins ends no future
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
