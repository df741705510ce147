"""What every request has to pass before it is read: host, origin, key, kind and size. Denied unless allowed."""

from __future__ import annotations

import asyncio
import hmac
import logging
import uuid

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from racro_pl.service.errors import ServiceError
from racro_pl.service.limits import Limits

LOG = logging.getLogger("racro_pl.service")
OPEN_PATHS = ("/health",)
SINGLE_HEADERS = ("host", "authorization", "content-encoding", "content-length", "content-type", "origin")
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}


class Guard:
    """ASGI middleware around the whole service.

    Args:
        hosts: the ``Host`` headers that are served, exactly.
        key: what clients have to send as ``Authorization: Bearer KEY``; None asks for none.
        limits: of bodies.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], key: str | None, limits: Limits) -> None:
        self._app = app
        self._hosts = hosts
        self._key = key
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        request_id = scope.setdefault("state", {})["request_id"] = uuid.uuid4().hex
        guarded = _with_headers(send, request_id)
        try:
            self._admit(scope)
        except ServiceError as error:
            LOG.info("%s %d refused: %s", request_id, error.status, error.code)
            # The connection ends: its body may not have been read.
            headers = {**error.headers, "connection": "close"}
            await JSONResponse(error.body(), error.status, headers)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _admit(self, scope: Scope) -> None:
        headers = _headers(scope)
        host = headers.get("host", "")
        if host not in self._hosts:
            raise ServiceError(421, "this host name is not served; start with --allow-host NAME to serve it", "host")
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise ServiceError(403, "requests of other sites' pages are not served", "origin")
        if scope["path"] not in OPEN_PATHS:
            self._check_key(headers.get("authorization", ""))
        if scope["method"] == "POST":
            if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
                raise ServiceError(415, "expected Content-Type: application/json", "content_type")
            if headers.get("content-encoding", "identity") != "identity":
                raise ServiceError(415, "compressed bodies are not read", "content_encoding")
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > self._limits.body_bytes:
                raise too_large(self._limits)

    def _check_key(self, authorization: str) -> None:
        if self._key is None:
            return
        given = authorization.removeprefix("Bearer ").encode()
        if not authorization.startswith("Bearer ") or not hmac.compare_digest(given, self._key.encode()):
            raise ServiceError(401, "wrong or missing key", "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _with_headers(send: Send, request_id: str) -> Send:
    """Adds the headers of every response."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [*HEADERS.items(), (b"x-request-id", request_id.encode())]
            message = {**message, "headers": [*message.get("headers", []), *own]}
        await send(message)

    return sending


async def read_body(receive: Receive, limits: Limits) -> bytes:
    """A request's body.

    Raises:
        ServiceError: it is too large (413) or too slow (408).
    """
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ServiceError(400, "the client has gone", "gone")
                body += message.get("body", b"")
                if len(body) > limits.body_bytes:
                    raise too_large(limits)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise ServiceError(408, f"the body took longer than {limits.body_s:g} s", "slow") from None


def too_large(limits: Limits) -> ServiceError:
    """Status 413."""
    return ServiceError(413, f"a body of more than {limits.body_bytes} bytes", "too_large")


def _headers(scope: Scope) -> Headers:
    """The request's headers; of one that is there twice nothing is believed."""
    headers = Headers(scope=scope)
    if any(len(headers.getlist(name)) > 1 for name in SINGLE_HEADERS):
        raise ServiceError(400, "a header is there twice", "header")
    return headers
