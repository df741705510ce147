"""JSON calls to an OpenAI-compatible server that always end: bounded in time, in attempts and in bytes."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import httpx

from racro_pl.serving.network import client_settings
from racro_pl.serving.replies import MAX_ERROR_CHARS, server_error
from racro_pl.text.printable import printable

MAX_BODY_BYTES = 4_000_000
"""Largest response that is read; a reasoner's answer of 100,000 tokens is well below."""
CONNECT_LIMIT_S = 10.0
IDLE_LIMIT_S = 2.0
"""Seconds after which an idle connection is not used again. Servers hang up after 5 (uvicorn, vLLM): a request that
is sent just then is lost."""
HEALING = (408, 409, 425, 429)
"""Statuses below 500 after which asking again may help: the server took too long, or was not ready yet."""
TIMEOUT = "timeout"
BAD_CERTIFICATE = "bad certificate"
SERVER_ERROR = "server error"
CONNECTION_FAILED = "connection failed"
MAX_WAIT_S = 30.0
"""Longest wait between two attempts, unless the server names a longer one."""
_MAX_MESSAGE_CHARS = 300


class Fault(Exception):
    """A call that brought nothing. ``str(fault)`` is ``kind: detail``."""

    def __init__(self, kind: str, detail: str, heals: bool = False, retry_after_s: float = 0.0) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
        self.heals = heals
        """Whether asking again may help: timeouts, lost connections, 408, 409, 425, 429 and 5xx, and nothing else."""
        self.retry_after_s = retry_after_s


class ChatClient:
    """Calls to one server, as many at once as are asked for. Belongs to the event loop it was made in.

    Every call has an HTTP client, and so a connection, to itself, and leaves both to a later call. A pool shared by
    n calls would look through all its connections for each of them: httpcore 1.0 then spends n^3 on n idle ones.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        attempts: int,
        attempt_s: float,
        backoff_s: float,
        max_body_bytes: int = MAX_BODY_BYTES,
        uds: Path | None = None,
        verify: str | None = None,
    ) -> None:
        """
        Args:
            api_key: sent as a bearer token; None sends none.
            attempts: most attempts per call.
            attempt_s: seconds for one attempt.
            backoff_s: wait before the second attempt, doubled for each further one, give or take a half.
            max_body_bytes: largest response that is read.
            verify: file or folder of the certificates to trust, see ``network.client_settings``.

        Raises:
            ConnectionSettingError: the environment's proxy or certificates cannot be used.
        """
        self._key = api_key
        self._uds = uds
        self._attempts = attempts
        self._attempt_s = attempt_s
        self._backoff_s = backoff_s
        self._max_body_bytes = max_body_bytes
        self._settings = connection_settings(base_url, api_key, verify)
        self._free: list[httpx.AsyncClient] = []
        """Clients that no call uses now; the one used last is the next, so that few stay open when little is asked."""

    async def call(
        self,
        method: str,
        path: str,
        payload: dict[str, Any] | None,
        deadline: float,
        *,
        plain: bool = False,
        refused_s: float = math.inf,
    ) -> Any:
        """Send a request, again where that may help, and decode the JSON response.

        Args:
            plain: the response is a text, not JSON: return it as it is.
            deadline: ``time.monotonic()`` at which everything ends, waits between attempts included.
            refused_s: seconds after which a server that takes no connection (nothing listens there) is given up.

        Raises:
            Fault: of the last attempt.
        """
        attempt, began = 0, time.monotonic()
        fault: Fault | None = None
        while True:
            attempt += 1
            limit_s = min(self._attempt_s, deadline - time.monotonic())
            try:
                async with asyncio.timeout(limit_s):
                    return await self._once(method, path, payload, plain)
            except (TimeoutError, httpx.TimeoutException) as error:
                # What the deadline cuts short says less than the fault before it.
                if fault is None or limit_s == self._attempt_s:
                    where = "no connection" if isinstance(error, httpx.ConnectTimeout) else "no complete answer"
                    fault = Fault(TIMEOUT, f"{where} within {max(limit_s, 0):.3g} s", heals=True)
            except httpx.TransportError as error:
                fault = self._lost(error)
                if isinstance(error, httpx.ConnectError):
                    deadline = min(deadline, began + refused_s)
            except Fault as error:
                fault = error
            wait_s = self._wait_s(attempt, fault)
            if not fault.heals or attempt == self._attempts or time.monotonic() + wait_s >= deadline:
                attempts = f" (attempt {attempt})" if attempt > 1 else ""
                raise Fault(fault.kind, fault.detail + attempts, fault.heals)
            await asyncio.sleep(wait_s)

    def _lost(self, error: httpx.TransportError) -> Fault:
        detail = printable(self._redact(f"{type(error).__name__}: {error}"))
        if "CERTIFICATE_VERIFY_FAILED" in detail:  # the same at every attempt
            return Fault(BAD_CERTIFICATE, detail)
        return Fault(CONNECTION_FAILED, detail, heals=True)

    def _wait_s(self, attempt: int, fault: Fault) -> float:
        # Jitter from a generator of its own: the run's seeded ones must not depend on network faults.
        backoff_s = min(MAX_WAIT_S, self._backoff_s * 2 ** (attempt - 1)) * _JITTER.uniform(0.5, 1.5)
        return max(backoff_s, fault.retry_after_s)

    async def _once(self, method: str, path: str, payload: dict[str, Any] | None, plain: bool) -> Any:
        # Escaped to ASCII: a text from a model may hold lone surrogates, which are not UTF-8.
        content = None if payload is None else json.dumps(payload).encode()
        client = self._free.pop() if self._free else self._new_client()
        try:
            async with client.stream(method, path, content=content) as response:
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > self._max_body_bytes:
                        raise Fault("bad response", f"more than {self._max_body_bytes} bytes")
        except BaseException:
            # Cut off in the middle, it might hold its only connection for good.
            await client.aclose()
            raise
        self._free.append(client)
        status = response.status_code
        if status != 200:
            raise Fault(
                f"HTTP {status}",
                self._quote(_refusal(response, bytes(body))),
                heals=_heals(status),
                retry_after_s=_retry_after_s(response.headers.get("retry-after", "")),
            )
        if plain:
            return body.decode(errors="replace")
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            coding = response.headers.get("content-encoding", "identity")
            packed = "" if coding == "identity" else f" (sent as {coding[:40]!r}, though asked for it unpacked)"
            start = self._redact(bytes(body[:MAX_ERROR_CHARS]).decode(errors="replace"))[:80]
            raise Fault("bad response", f"not JSON: {start!r}{packed}") from None
        if isinstance(data, dict) and data.get("error") and not data.get("choices"):
            raise self._reported(data["error"])
        return data

    def _reported(self, error: Any) -> Fault:
        """The fault that a response of status 200 reports in its body."""
        code = error.get("code") if isinstance(error, dict) else None
        status = code if type(code) is int and 400 <= code < 600 else None
        detail = self._quote(server_error(error))
        return Fault(f"HTTP {status}" if status else SERVER_ERROR, detail, heals=status is not None and _heals(status))

    def _quote(self, text: str) -> str:
        # In this order: a key that the limit cuts in two would no longer be recognised.
        return printable(self._redact(" ".join(text[:MAX_ERROR_CHARS].split()))[:_MAX_MESSAGE_CHARS])

    def _new_client(self) -> httpx.AsyncClient:
        # A transport is one client's: closed, it closes with its client.
        transport = httpx.AsyncHTTPTransport(uds=str(self._uds)) if self._uds is not None else None
        return httpx.AsyncClient(**self._settings, transport=transport)

    def _redact(self, text: str) -> str:
        # Servers and HTTP libraries quote the key back in their error messages.
        return text.replace(self._key, "***") if self._key else text

    async def close(self) -> None:
        """Close the connections; calls under way have to have ended."""
        while self._free:
            await self._free.pop().aclose()


def connection_settings(base_url: str, api_key: str | None, verify: str | None = None) -> dict[str, Any]:
    """Arguments of ``httpx.AsyncClient`` for one connection to a server.

    Raises:
        ConnectionSettingError: the environment's proxy or certificates cannot be used.
    """
    # Bodies are read raw, so that a compressed one cannot unpack beyond the size limit.
    headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
    return {
        # One set of certificates for all clients: reading it takes longer than a call.
        **client_settings(base_url, verify),
        "headers": headers | ({"Authorization": f"Bearer {api_key}"} if api_key else {}),
        "timeout": httpx.Timeout(None, connect=CONNECT_LIMIT_S),
        "limits": httpx.Limits(max_connections=1, keepalive_expiry=IDLE_LIMIT_S),
    }


_JITTER = random.Random()


def _heals(status: int) -> bool:
    return status in HEALING or status >= 500


def _retry_after_s(header: str) -> float:
    # Servers of this kind send seconds; the HTTP-date form falls back to our own backoff.
    return float(header) if header.strip().isdecimal() and len(header) < 9 else 0.0


def _refusal(response: httpx.Response, body: bytes) -> str:
    if response.is_redirect:
        # Captions and the API key are meant for the address in the settings, and for no other.
        where = response.headers.get("location", "")
        return f"sent on to {where!r}, which is not followed; set url to the server's own address"
    return _server_message(body) or response.reason_phrase


def _server_message(body: bytes) -> str:
    text = body.decode(errors="replace")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    return server_error(data.get("error", data)) if isinstance(data, dict) else text
