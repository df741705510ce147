"""Batches of captions: what becomes of orders when a client goes, the captioner fails, or the service stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest

from racro_pl.evaluation.writers import Task, Written
from racro_pl.service.captions import CaptionBatcher
from racro_pl.types import Question
from tests.helpers.service import LIMIT_S, SizeWriter, picture, wait_until


def test_a_failed_batch_is_not_written_for_clients_that_have_gone() -> None:
    alone: list[str] = []
    gone = threading.Event()

    class Picky(SizeWriter):
        def write(self, work: Sequence[tuple[Question, Task]]) -> Iterator[Written]:
            if len(work) > 1:
                assert gone.wait(LIMIT_S)
                raise TypeError("not together")
            alone.append(work[0][0].text)
            return super().write(work)

    async def three_orders_one_client() -> Written:
        batcher = CaptionBatcher(Picky())
        orders = [asyncio.create_task(batcher.write(text, [picture()], "caption")) for text in ("a", "b", "c")]
        await asyncio.sleep(0.1)  # they are being written
        for order in orders[:2]:
            order.cancel()
        await asyncio.gather(*orders[:2], return_exceptions=True)
        gone.set()
        written = await orders[2]
        await batcher.close()
        return written

    assert asyncio.run(three_orders_one_client()).text == "1 of 8 x 6 for c"
    assert alone == ["c"]


def test_a_text_that_the_captioner_leaves_out_is_an_error_of_its_order_alone() -> None:
    class Forgetful(SizeWriter):
        def write(self, work: Sequence[tuple[Question, Task]]) -> Iterator[Written]:
            return super().write([each for each in work if each[0].text != "forgotten"])

    async def ask() -> list[Written | BaseException]:
        batcher = CaptionBatcher(Forgetful())
        texts = ("one", "forgotten", "two")
        found = await asyncio.gather(
            *(batcher.write(text, [picture()], "caption") for text in texts), return_exceptions=True
        )
        found.append(await batcher.write("later", [picture()], "caption"))
        await batcher.close()
        return found

    one, forgotten, two, later = asyncio.run(ask())
    assert [each.text.split()[-1] for each in (one, two, later)] == ["one", "two", "later"]  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="left out a text"):
        raise forgotten  # type: ignore[misc]


def test_stopping_does_not_wait_for_a_captioners_server() -> None:
    class Served(SizeWriter):
        """Waits for its server, until it is closed."""

        def close(self) -> None:
            super().close()
            assert self.ready is not None
            self.ready.set()

    writer = Served(threading.Event())

    async def stop() -> None:
        batcher = CaptionBatcher(writer)
        order = asyncio.create_task(batcher.write("one", [picture()], "caption"))
        await asyncio.to_thread(wait_until, lambda: bool(writer.batches))
        order.cancel()
        await batcher.close()

    began = threading.Timer(LIMIT_S / 2, writer.ready.set)  # type: ignore[union-attr]
    began.start()
    asyncio.run(stop())
    assert began.is_alive(), "the batch ended by itself"
    began.cancel()
