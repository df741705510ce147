"""Runs the service under uvicorn, with deadlines that uvicorn does not have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from racro_pl.service.limits import Limits
from racro_pl.types import RacroError

KEEP_ALIVE_S = 5
LARGEST_HEAD = 16_384


def bound(host: str, port: int) -> socket.socket:
    """Listens at this address, so that a taken one is found out before any model is loaded.

    Clients that come while models are loaded wait. Were they refused until then, two services that are started
    together would both be bound, and one would fail only when its models are there.

    Raises:
        RacroError: nothing can listen there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        raise RacroError(
            f"cannot listen on {host}, port {port} ({error.strerror}); choose another --host or --port"
        ) from None
    return listener


@contextlib.contextmanager
def bound_uds(path: Path, open_to_others: bool) -> Iterator[socket.socket]:
    """Listens on a Unix socket, as :func:`bound` does, and removes it in the end. Only what is ours is removed.

    Args:
        path: nothing, or a socket on which no one listens any more.
        open_to_others: other users can connect if they can enter the folder; else this one alone.

    Raises:
        RacroError: nothing can listen there.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            _make_room(path)
            # Not chmod after bind: it would follow a link that others have put there meanwhile.
            mask = os.umask(0o111 if open_to_others else 0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(mask)
            listener.listen()
            own = _identity(path)
        except OSError as error:
            raise RacroError(
                f"--uds {path}: cannot listen there ({error.strerror or error}); choose another path"
            ) from None
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):
                if _identity(path) == own:
                    path.unlink()


def _make_room(path: Path) -> None:
    """Removes the socket of a service that was killed."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise RacroError(f"--uds {path} is there already and is no socket; choose another path, or remove it")
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(BlockingIOError):
        client.setblocking(False)  # who listens may have no room for one more
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise RacroError(f"--uds {path}: another program listens there; stop it, or choose another path")


def _identity(path: Path) -> tuple[int, int, int]:
    """Differs for two files that were at a path one after the other, though the second may get the first's inode."""
    status = path.lstat()
    return status.st_dev, status.st_ino, status.st_mtime_ns


def run(app: ASGIApp, limits: Limits, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        app: guarded already.
        limits: of connections and of the time that clients take.
        listener: from :func:`bound` or :func:`bound_uds`.
    """
    # uvicorn passes a signal on once it has shut down. SIGTERM is then an ordinary end: status 0, nothing left over.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.Server(config(app, limits)).run([listener])


def config(app: ASGIApp, limits: Limits) -> uvicorn.Config:
    """uvicorn's settings for :func:`run`."""
    protocol: Any = type("Protocol", (_PromptClients,), {"header_s": limits.header_s, "send_s": limits.send_s})
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=LARGEST_HEAD,
    )


class _PromptClients(H11Protocol):
    """Hangs up on a client that does not finish a request's head, or take what it is sent, in time.

    uvicorn itself would wait for ever: closing a connection waits until everything is sent, too.
    """

    header_s = 10.0
    send_s = 30.0
    _expiry: asyncio.TimerHandle | None = None
    _abort: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # Writing is paused whenever anything waits to be sent, however little.
        transport.set_write_buffer_limits(high=0)
        self._arm()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._abort = self.loop.call_later(self.send_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._keep()
        super().resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._keep()
        super().connection_lost(exc)

    def _keep(self) -> None:
        if self._abort is not None:
            self._abort.cancel()
            self._abort = None

    def _arm(self) -> None:
        self._disarm()
        self._expiry = self.loop.call_later(self.header_s, self._expire)

    def _disarm(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _expire(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
