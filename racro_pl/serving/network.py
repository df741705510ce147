"""Where a server is and how it is reached: address, proxy, certificates. What cannot work is told in one line."""

from __future__ import annotations

import ipaddress
import os
import ssl
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from racro_pl.types import RacroError


class ConnectionSettingError(RacroError, ValueError):
    """An address, a proxy or certificates that cannot be used as they are set."""


def clean_url(url: str) -> str:
    """A server's base URL, without white space around it and without a slash at its end.

    Raises:
        ConnectionSettingError: it is none. A user name, a password or a query is never repeated in the message.
    """
    url = url.strip()
    authority = url.split("://", 1)[-1].split("/", 1)[0]
    if "@" in authority:
        raise ConnectionSettingError("got a url with a user or password in it, expected api_key_env")
    if "?" in url or "#" in url:
        raise ConnectionSettingError("got a url with ? or # in it, expected a base URL such as http://host:port/v1")
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise ConnectionSettingError(f"got url={url!r} ({error}), expected http://host:port/v1") from None
    readable = url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or not readable:
        raise ConnectionSettingError(f"got url={url!r}, expected http://host:port/v1")
    if parts.port == 0:
        raise ConnectionSettingError(f"got url={url!r}, expected a port from 1 to 65535")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether a URL points at this machine by name or address. ``0.0.0.0`` does: vLLM prints it where it listens."""
    host = urlsplit(url).hostname or ""
    address = _ip_address(host)
    return is_local_address(host) or (address is not None and address.is_unspecified)


def is_local_address(host: str) -> bool:
    """Whether only this machine can reach servers that listen on ``host``."""
    address = _ip_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def connect_url(url: str) -> str:
    """The URL to connect to: the addresses that mean "wherever I listen" become this machine's own.

    Example:
        >>> connect_url("http://0.0.0.0:8000/v1"), connect_url("http://[::]:8000/v1")
        ('http://127.0.0.1:8000/v1', 'http://[::1]:8000/v1')
    """
    parts = urlsplit(url)
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(parts.hostname or "")
    if host is None:
        return url
    return parts._replace(netloc=host if parts.port is None else f"{host}:{parts.port}").geturl()


def client_settings(url: str, verify: str | None = None) -> dict[str, Any]:
    """Arguments for ``httpx.AsyncClient``: address, proxy and certificates.

    Args:
        verify: file or folder with the certificates of the authorities to trust. Default: ``SSL_CERT_FILE`` or
            ``SSL_CERT_DIR`` of the environment, else those that come with certifi.

    Raises:
        ConnectionSettingError: the proxy or the certificates cannot be used.
    """
    proxy = None if is_loopback(url) else _proxy(url)
    # Everything that the environment says is read here: httpx would end in errors of its own for odd entries.
    settings: dict[str, Any] = {
        "base_url": connect_url(url), "proxy": proxy, "verify": _certificates(url, verify), "trust_env": False
    }  # fmt: skip
    try:
        _ = urlsplit(proxy or "").port  # raises where it is no port
        httpx.AsyncClient(**settings)  # opens nothing; refuses a proxy that it cannot use
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ConnectionSettingError(_proxy_advice(url, proxy or "", error)) from None
    return settings


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for a URL."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc) or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _proxy_advice(url: str, proxy: str, error: Exception) -> str:
    # Its value may hold a password: only its scheme is shown.
    scheme = urlsplit(url).scheme
    names = [f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"]
    name = next((name for name in names if os.environ.get(name)), "the system's proxy setting")
    host = urlsplit(url).hostname
    kind = proxy.split("://", 1)[0]
    if isinstance(error, ImportError):
        fix = "install it with pip install 'httpx[socks]', name an http:// proxy"
        problem = f"names a {kind}:// proxy, which needs the package socksio"
    else:
        fix = "name a proxy as http://host:port or socks5://host:port"
        problem = f"names a proxy that cannot be used ({kind}://...)"
    return f"{url}: {name} {problem}: {fix}, or reach the server directly with NO_PROXY={host}"


def _certificates(url: str, verify: str | None) -> ssl.SSLContext:
    if urlsplit(url).scheme == "http":
        # None are needed, and redirects are not followed: this trusts no one, and reads no file.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    found = next(((name, os.environ[name]) for name in names if os.environ.get(name)), None)
    setting, path = ("verify", verify) if verify is not None else found or ("", "")
    if not path:
        return httpx.create_ssl_context(trust_env=False)
    try:
        if Path(path).is_dir():
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConnectionSettingError(
            f"got {setting}={path!r} ({error}), expected a file (PEM) or folder of certificates to trust for {url}"
        ) from None
