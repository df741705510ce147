"""The process that decodes strangers' images: one that hangs or dies costs itself alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from racro_pl.service import decoding
from racro_pl.service.decoding import ImageDecoder
from racro_pl.service.errors import ServiceError
from racro_pl.service.limits import Limits
from tests.helpers.service import picture, wait_until


def misbehave_or_decode(data: bytes, pixels: int) -> bytes | None:
    kind, _, marker = data.partition(b":")
    if kind == b"hang":
        if marker:
            Path(os.fsdecode(marker)).touch()
        time.sleep(600)
    if data == b"die":
        os._exit(1)
    return decode(data, pixels)


decode = decoding.decode


@pytest.mark.parametrize("bad", [b"hang", b"die"])
def test_what_hangs_or_dies_costs_no_other_image(monkeypatch, bad) -> None:
    monkeypatch.setattr(decoding, "decode", misbehave_or_decode)

    async def all_at_once() -> list[object]:
        decoder = ImageDecoder(Limits())
        first = await decoder.decode(picture(), "first")
        monkeypatch.setattr(decoding, "SECONDS", 1.0 if bad == b"hang" else 100.0)
        pending = [asyncio.create_task(decoder.decode(bad, "bad"))]
        await asyncio.sleep(0)  # it has its turn
        pending += [asyncio.create_task(decoder.decode(picture(), "good")) for _ in range(3)]
        found = await asyncio.gather(pending[0], return_exceptions=True)
        monkeypatch.setattr(decoding, "SECONDS", 100.0)
        found += await asyncio.gather(*pending[1:], return_exceptions=True)
        decoder.close()
        return [first, *found]

    first, refused, *others = asyncio.run(all_at_once())
    assert isinstance(refused, ServiceError)
    assert (refused.status, refused.param) == (400, "bad")
    assert others == [first] * 3


def test_a_process_that_does_not_start_is_no_fault_of_the_image(monkeypatch) -> None:
    monkeypatch.setattr(decoding, "START_SECONDS", 0.0)
    decoder = ImageDecoder(Limits())
    with pytest.raises(ServiceError, match="images cannot be read now") as error:
        asyncio.run(decoder.decode(picture(), "image"))
    decoder.close()
    assert error.value.status == 503


def test_an_image_that_hangs_ends_with_its_client(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(decoding, "decode", misbehave_or_decode)
    monkeypatch.setattr(decoding, "SECONDS", 1000.0)

    async def hang_up() -> bytes:
        decoder = ImageDecoder(Limits())
        await decoder.decode(picture(), "first")  # the process runs
        hanging = asyncio.create_task(decoder.decode(b"hang:" + os.fsencode(tmp_path / "begun"), "bad"))
        while not (tmp_path / "begun").exists():
            await asyncio.sleep(0.01)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        try:
            return await decoder.decode(picture(), "next")
        finally:
            decoder.close()

    assert asyncio.run(hang_up()).startswith(b"BM")


def test_clients_that_go_while_the_process_starts_cost_no_later_image(monkeypatch) -> None:
    monkeypatch.setattr(decoding, "IMAGES_PER_PROCESS", 2)
    monkeypatch.setattr(decoding, "START_SECONDS", 30.0)

    async def go_and_come() -> list[bytes]:
        decoder = ImageDecoder(Limits())
        for _ in range(3):
            gone = asyncio.create_task(decoder.decode(picture(), "gone"))
            await asyncio.sleep(0.01)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        try:
            return [await decoder.decode(picture(), "good") for _ in range(5)]
        finally:
            decoder.close()

    assert len(asyncio.run(go_and_come())) == 5


def test_a_process_that_ends_while_it_has_nothing_to_do_is_replaced() -> None:
    async def between_two_images() -> list[bytes]:
        decoder = ImageDecoder(Limits())
        first = await decoder.decode(picture(), "first")
        (process,) = decoder._pool._processes.values()
        process.kill()
        await asyncio.to_thread(process.join)
        try:
            return [first, await decoder.decode(picture(), "second")]
        finally:
            decoder.close()

    first, second = asyncio.run(between_two_images())
    assert first == second


SERVER_THAT_WAITS = """
import asyncio
from racro_pl.service.decoding import ImageDecoder
from racro_pl.service.limits import Limits
from tests.helpers.service import picture, wait_until

async def main():
    decoder = ImageDecoder(Limits())
    await decoder.decode(picture(), "image")
    print(*decoder._pool._processes, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def test_the_process_ends_with_a_server_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER_THAT_WAITS], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        status = Path("/proc", server.stdout.readline().strip(), "status")
        assert status.is_file()
        server.kill()
    wait_until(lambda: not status.is_file() or "State:\tZ" in status.read_text())


@pytest.mark.parametrize("task", ["the process starts", "an image is decoded"])
def test_who_is_cancelled_just_when_the_process_has_done_its_task_is_cancelled(monkeypatch, task) -> None:
    async def cancelled_at_that_moment() -> None:
        loop = asyncio.get_running_loop()
        done: list[asyncio.Future[None]] = []

        def in_executor(*_: object) -> asyncio.Future[None]:
            done.append(loop.create_future())
            return done[-1]

        monkeypatch.setattr(loop, "run_in_executor", in_executor)
        request = asyncio.create_task(ImageDecoder(Limits()).decode(picture(), "image"))
        await asyncio.sleep(0)
        if task == "an image is decoded":
            done[0].set_result(None)
            while len(done) < 2:
                await asyncio.sleep(0)
        done[-1].set_result(None)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(cancelled_at_that_moment())
