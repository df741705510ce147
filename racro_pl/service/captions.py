"""Captions for concurrent requests: asked for one by one, written in batches, on one thread."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from racro_pl.evaluation.writers import Task, Writer, Written
from racro_pl.terminal import get_logger
from racro_pl.types import ImageRef, Question

BATCH_SIZE = 16
"""Most texts in a batch."""
GATHER_S = 0.01
"""How long a batch waits for company."""


@dataclass(frozen=True)
class _Order:
    question: Question
    task: Task
    written: asyncio.Future[Written]


class CaptionBatcher:
    """Puts what is asked for at about the same time into one batch. Orders whose client has gone are not written.

    Args:
        writer: the captioner; used on this object's thread alone.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._orders: asyncio.Queue[_Order] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "captioner")
        self._consumer: asyncio.Task[None] | None = None
        self.batches = 0
        self.texts = 0

    async def write(self, text: str, images: Sequence[bytes], task: Task) -> Written:
        """One caption or tentative answer. Cancelling this takes the order back while it waits."""
        if self._consumer is None:
            self._consumer = asyncio.create_task(self._consume())
        references = tuple(ImageRef(data=image) for image in images)
        question = Question(uuid.uuid4().hex, references, text, answer="", answer_type="math")
        order = _Order(question, task, asyncio.get_running_loop().create_future())
        await self._orders.put(order)
        return await order.written

    async def _consume(self) -> None:
        while True:
            orders = [await self._orders.get()]
            await asyncio.sleep(GATHER_S)
            while len(orders) < BATCH_SIZE and not self._orders.empty():
                orders.append(self._orders.get_nowait())
            wanted = [order for order in orders if not order.written.done()]
            if wanted:
                await self._fill(wanted)

    async def _fill(self, orders: list[_Order]) -> None:
        work = [(order.question, order.task) for order in orders]
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._thread, lambda: list(self._writer.write(work)))
        except Exception as error:  # whatever a model raises is this batch's, not the server's end
            if len(orders) > 1:  # and one client's text is not the others' failure
                get_logger(__name__).warning(
                    "the captioner failed on %d texts together, which are written one by one: %s: %s",
                    len(orders), type(error).__name__, error,
                )  # fmt: skip
                for order in orders:
                    if not order.written.done():  # its client may have gone meanwhile
                        await self._fill([order])
                return
            # The clients learn no more than that it failed.
            get_logger(__name__).error("the captioner failed on a text: %s: %s", type(error).__name__, error)
            if not orders[0].written.done():
                orders[0].written.set_exception(error)
            return
        self.batches += 1
        self.texts += len(results)
        by_order = {(written.question.id, written.task): written for written in results}
        for order in orders:
            if order.written.done():
                continue
            if (written := by_order.get((order.question.id, order.task))) is None:
                order.written.set_exception(RuntimeError("the captioner left out a text"))
            else:
                order.written.set_result(written)

    async def close(self) -> None:
        """Stop. Requests to a captioner's server end; a batch of a model in this process is waited for."""
        if self._consumer is not None:
            self._consumer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._consumer
        await asyncio.to_thread(self._writer.close)  # before the thread, which may wait for a server
        await asyncio.to_thread(self._thread.shutdown)
