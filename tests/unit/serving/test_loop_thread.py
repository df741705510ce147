"""What is given to a loop ends, whenever it is closed."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError, Future

import pytest

from racro_pl.serving.loop_thread import LoopThread

PATIENT_S = 100.0


class Client:
    """Runs something as it is closed."""

    def __init__(self, as_closed=lambda: None):
        self.as_closed = as_closed

    async def close(self):
        self.as_closed()
        await asyncio.sleep(0)


async def told(end: Future[str]) -> None:
    """Work that tells of its end by a future of its own, as a reasoner's requests do."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        end.set_result("cancelled")
        raise


def test_work_given_while_the_loop_is_closed_ends():
    late, end = [], Future()

    def give():
        late.append(thread.submit(asyncio.Event().wait()))
        thread.loop.call_soon_threadsafe(lambda: thread.loop.create_task(told(end)))

    thread = LoopThread(Client(give), "loop under test")
    thread.close()
    with pytest.raises(CancelledError):
        late[0].result(PATIENT_S)
    assert end.result(PATIENT_S) == "cancelled"


def test_work_that_has_not_begun_as_the_loop_is_closed_is_told_too(monkeypatch):
    thread, end = LoopThread(Client(), "loop under test"), Future()
    busy, go, closing = threading.Event(), threading.Event(), threading.Event()
    thread.loop.call_soon_threadsafe(lambda: (busy.set(), go.wait(PATIENT_S)))
    assert busy.wait(PATIENT_S)
    submit = thread.submit
    monkeypatch.setattr(thread, "submit", lambda work: (submit(work), closing.set())[0])
    closer = threading.Thread(target=thread.close)
    closer.start()
    assert closing.wait(PATIENT_S)
    # After the closing, and both wait for the loop: the task is made just before all tasks are cancelled.
    thread.loop.call_soon_threadsafe(lambda: thread.loop.create_task(told(end)))
    go.set()
    assert end.result(PATIENT_S) == "cancelled"
    closer.join(PATIENT_S)


def test_a_loop_refuses_what_it_will_not_run():
    refused = []

    def give_from_elsewhere():
        with pytest.raises(RuntimeError, match="Event loop is closed") as error:
            thread.loop.call_soon_threadsafe(print)
        refused.append(error)

    async def last():
        try:
            await asyncio.Event().wait()
        finally:  # the loop has ended, but for what it cancels now
            other = threading.Thread(target=give_from_elsewhere)
            other.start()
            other.join(PATIENT_S)

    thread = LoopThread(Client(lambda: thread.submit(last())), "loop under test")
    thread.close()
    assert refused
    give_from_elsewhere()


def test_a_loop_is_closed_from_within_another():
    """A notebook's cell runs in one."""

    async def cell():
        LoopThread(Client(), "loop under test").close()

    asyncio.run(cell())
    assert "loop under test" not in [thread.name for thread in threading.enumerate()]
