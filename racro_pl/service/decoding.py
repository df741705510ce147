"""Strangers' images are decoded in a process of their own, with bounds on memory and time."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import os
import resource
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from racro_pl.service.errors import ServiceError, bad_request
from racro_pl.service.limits import Limits

MEMORY_BYTES = 2_000_000_000
"""Address space of the process that decodes."""
SECONDS = 10.0
"""For one image, counted from when the process has nothing else to do."""
START_SECONDS = 120.0
"""For the process to start and import what it needs, on a busy machine."""
IMAGES_PER_PROCESS = 256
FORMATS = ("PNG", "JPEG", "WEBP")


class ImageDecoder:
    """Turns encoded images into plain ones (BMP, RGB, upright): no decoder for strangers' bytes runs in the server."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pool: ProcessPoolExecutor | None = None
        self._ready: asyncio.Future[None] | None = None
        self._turn = asyncio.Lock()

    async def decode(self, data: bytes, where: str) -> bytes:
        """The same picture as an uncompressed file.

        Raises:
            ServiceError: status 400: it is no image of the formats allowed, or too large; 503: no process starts.
        """
        # One after the other: an image that hangs takes its own time, and no other image's.
        async with self._turn:
            decoded = await self._decode(data)
        if decoded is None:
            raise bad_request(
                f"not a PNG, JPEG or WebP image of at most {self._limits.image_pixels} pixels", "image", where
            )
        return decoded

    async def _decode(self, data: bytes) -> bytes | None:
        try:
            # Not wait_for: before Python 3.12 it returns a result that comes as the request's deadline passes, and the
            # request then continues without a deadline.
            async with asyncio.timeout(START_SECONDS):
                pool = await self._running_pool()
        except (BrokenProcessPool, TimeoutError):
            self.close()
            raise ServiceError(503, "images cannot be read now; try again later", "image_reader") from None
        try:
            async with asyncio.timeout(SECONDS):
                return await asyncio.get_running_loop().run_in_executor(pool, decode, data, self._limits.image_pixels)
        except (BrokenProcessPool, TimeoutError):
            self.close()
            return None
        except asyncio.CancelledError:  # the client has gone: nobody would end an image that hangs
            self.close()
            raise

    async def _running_pool(self) -> ProcessPoolExecutor:
        """The pool, once its process runs. One that has ended while it had nothing to do is replaced."""
        try:
            return await self._begun()
        except BrokenProcessPool:
            self.close()
            return await self._begun()

    async def _begun(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = _new_pool()
        if self._ready is None:
            self._ready = asyncio.get_running_loop().run_in_executor(self._pool, ready)
        # A client that goes meanwhile leaves the task to the next one: the pool miscounts tasks that are cancelled
        # while they wait, and starts no further process once the first has done its share.
        await asyncio.shield(self._ready)
        self._ready = None
        return self._pool

    def close(self) -> None:
        """End the process, whatever it is doing."""
        pool, self._pool, self._ready = self._pool, None, None
        if pool is not None:
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.kill()


def _new_pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=begin,
        # Two tasks an image, so that a process that has done its share ends before one that only waits for the next.
        max_tasks_per_child=2 * IMAGES_PER_PROCESS,
    )


def begin() -> None:
    """What the process does first: it bounds its memory, and sees to it that it ends with the server."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def ready() -> None:
    """Done when the process runs and has imported what decoding needs."""
    from PIL import Image

    import racro_pl.images  # noqa: F401

    Image.init()


def decode(data: bytes, pixels: int) -> bytes | None:
    """What the process does; None where the image cannot be used."""
    from PIL import Image

    from racro_pl.images import ImageError, encoded, image_size, open_image
    from racro_pl.types import ImageRef

    reference = ImageRef(data=data)
    try:
        Image.open(io.BytesIO(data), formats=FORMATS).close()
        width, height = image_size(reference)
        if width * height > pixels:
            return None
        return encoded(open_image(reference), "BMP")
    except (ImageError, OSError, ValueError, SyntaxError, MemoryError):
        return None
