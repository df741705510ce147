"""Runs the service under uvicorn, with deadlines that uvicorn does not have."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
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
    """A socket at this address, so that a taken one is found out before any model is loaded.

    Raises:
        RacroError: nothing can listen there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise RacroError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another --host or --port"
        ) from None
    return listener


def run(app: ASGIApp, limits: Limits, listener: socket.socket | None, uds: Path | None = None) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        app: guarded already.
        limits: of connections and of the time that a request's head may take.
        listener: from :func:`bound`.
        uds: a Unix socket in its place.
    """
    # uvicorn passes a signal on once it has shut down. SIGTERM is then an ordinary end: status 0, nothing left over.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        uvicorn.Server(config(app, limits, uds)).run(None if listener is None else [listener])
    finally:
        if uds is not None:
            uds.unlink(missing_ok=True)


def config(app: ASGIApp, limits: Limits, uds: Path | None = None) -> uvicorn.Config:
    """uvicorn's settings for :func:`run`."""
    protocol: Any = type("Protocol", (_PromptClients,), {"header_s": limits.header_s})
    return uvicorn.Config(
        app,
        uds=None if uds is None else str(uds),
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
    """Hangs up on a client that does not finish a request's head in time; uvicorn itself would wait for ever."""

    header_s = 10.0
    _expiry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._arm()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

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
