"""Images at addresses, where whoever serves has allowed them: https, public, pinned, bounded.

A client's address must not make the server read its own network. A name is resolved once, every address that it has
must be a public one, and the connection goes to that address, so that a second answer of the name server changes
nothing. Each redirect is checked again. No key or cookie goes along, and no proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx

from racro_pl.service.errors import bad_request
from racro_pl.service.limits import Limits

SECONDS = 10.0
"""For one image, redirects included."""
REDIRECTS = 3
_EMBEDDED_IPV4 = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "2002::/16", "2001::/32", "::ffff:0:0/96", "::/96")))
"""IPv6 addresses that lead to an IPv4 one, whatever that is."""

_NAMES = ThreadPoolExecutor(8, "names")

Resolve = Callable[[str], Awaitable[list[str]]]


async def resolve(host: str) -> list[str]:
    """All addresses of a host."""
    # Not the loop's own threads: names that take long would keep other requests from being read.
    ask = partial(socket.getaddrinfo, host, 443, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_NAMES, ask)
    return [str(entry[4][0]) for entry in found]


class ImageFetcher:
    """Reads the bytes at an https address; they are decoded as strangers' bytes are, elsewhere.

    Args:
        transport: makes the connections; None for httpx's own, without this machine's proxies.
    """

    def __init__(
        self, limits: Limits, transport: httpx.AsyncBaseTransport | None = None, resolve: Resolve = resolve
    ) -> None:
        self._limits = limits
        self._transport = transport
        self._resolve = resolve

    async def fetch(self, url: str, where: str) -> bytes:
        """The file at ``url``.

        Raises:
            ServiceError: status 400, with one text for every reason: what differs would tell about the network.
        """
        try:
            async with asyncio.timeout(SECONDS):
                for _ in range(1 + REDIRECTS):
                    answer = await self._get(httpx.URL(url))
                    if isinstance(answer, bytes):
                        return answer
                    url = answer
        except (_Refused, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, TimeoutError):
            pass
        limit = f"no file of at most {self._limits.image_bytes} bytes was read there"
        raise bad_request(f"{limit}; the address has to be public and https", "image_url", where)

    async def _get(self, url: httpx.URL) -> bytes | str:
        """What is there, or where it leads."""
        if url.scheme != "https" or url.port not in (None, 443) or url.userinfo or not url.host:
            raise _Refused
        addresses = await self._resolve(url.host)
        if not addresses or not all(map(is_public, addresses)):
            raise _Refused
        # A client for each: a connection that is kept has had its certificate checked for another name.
        async with httpx.AsyncClient(transport=self._transport, trust_env=False, timeout=SECONDS) as client:
            request = client.build_request(
                "GET", url.copy_with(host=addresses[0]),
                headers={"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"},
                extensions={"sni_hostname": url.raw_host.decode("ascii")},
            )  # fmt: skip
            response = await client.send(request, stream=True, follow_redirects=False)
            try:
                if response.is_redirect:
                    return str(url.join(response.headers.get("location", "")))
                return await self._read(response)
            finally:
                await response.aclose()

    async def _read(self, response: httpx.Response) -> bytes:
        if response.status_code != 200 or response.headers.get("content-encoding", "identity") != "identity":
            raise _Refused
        data = bytearray()
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > self._limits.image_bytes:
                raise _Refused
        return bytes(data)


class _Refused(Exception):
    """An address that is not read."""


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the internet at large, and not to this machine or its networks."""
    parsed = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(parsed, ipaddress.IPv6Address) and any(parsed in network for network in _EMBEDDED_IPV4):
        return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved
