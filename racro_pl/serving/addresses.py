"""Where a server that we start listens, who can reach it there, and with which key."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from racro_pl.types import RacroError

LONGEST_SOCKET_PATH = 103
"""Bytes that the path of a Unix socket may have everywhere (macOS: 104 with the end; Linux: 108)."""
KEY_VARIABLE = "VLLM_API_KEY"
"""Where vLLM looks for the key that requests need. Never its command line, which every user of a machine can read."""
_issued: dict[str, str] = {}


class AddressError(RacroError, ValueError):
    """A server cannot listen where it was told to, or not as safely as it has to."""


def refuse_written_keys(extra_args: Sequence[str], env: Mapping[str, str]) -> None:
    """A key in a server's settings would stand in the run's config.yaml, and as an argument in the list of processes.

    Raises:
        AddressError: there is one; it is not repeated.
    """
    argument = any(argument.partition("=")[0] == "--api-key" for argument in extra_args)
    if argument or KEY_VARIABLE in env:
        what = "--api-key in extra_args" if argument else f"{KEY_VARIABLE} in env"
        raise AddressError(
            f"{what} would be written into files and shown to others; export {KEY_VARIABLE} before the run instead: "
            "server and trainer both take the key from there"
        )


def socket_path(name: str) -> Path:
    """Path of a Unix socket in a folder of its own, below the folder for temporary files.

    Args:
        name: of the folder; the same for all processes that use the server, and not to be guessed by others.

    Raises:
        AddressError: the path is longer than the system takes.
    """
    path = Path(tempfile.gettempdir()).absolute() / f"racro-{name}" / "vllm.sock"
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise AddressError(
            f"the path of the rollout server's socket is too long ({path}): expected at most {LONGEST_SOCKET_PATH} "
            "bytes; set TMPDIR to a shorter path, such as /tmp"
        )
    return path


def make_private_folder(path: Path) -> None:
    """A new folder that only this user can enter.

    Raises:
        AddressError: it is there already (whose it is cannot be told), or cannot be made.
    """
    try:
        path.mkdir(mode=0o700)
    except OSError as error:
        raise AddressError(f"cannot make the folder {path} for the server's socket ({error.strerror})") from None


def is_private(path: Path) -> bool:
    """Whether a folder is there, is this user's, and no other user can enter it."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        return status.st_uid == os.getuid() and status.st_mode & 0o077 == 0
    return False


def issue_key(url: str, key: str) -> None:
    """From now on, this process's clients send this key to a server that the run has started there."""
    _issued[url.rstrip("/")] = key


def withdraw_key(url: str) -> None:
    """The server at this URL is no longer ours."""
    _issued.pop(url.rstrip("/"), None)


def issued_key(url: str) -> str | None:
    """The key of a server that the run has started at this URL; None for any other."""
    return _issued.get(url.rstrip("/"))


def is_healthy(root: str, timeout_s: float = 5.0, uds: Path | None = None) -> bool:
    """Whether a server at ``http://HOST:PORT``, or at a Unix socket, answers its health check with 200."""
    if uds is not None and not is_private(uds.parent):
        return False
    # The machine's proxy settings are not meant for its own addresses.
    transport = httpx.HTTPTransport(uds=str(uds)) if uds is not None else None
    with (
        contextlib.suppress(httpx.HTTPError),
        httpx.Client(trust_env=False, timeout=timeout_s, transport=transport) as client,
    ):
        return client.get(f"{root}/health").status_code == 200
    return False


def free_port(host: str) -> int:
    """A port of ``host`` on which nothing listens now.

    None that the system would pick: it gives those to outgoing connections of any program, perhaps before the server
    listens. Linux picks from 32768 on, macOS from 49152 on.

    Raises:
        OSError: ``host`` is no address of this machine.
        AddressError: none of many that were tried is free.
    """
    with _bindable_socket(host) as sock:
        sock.bind((host, 0))
    for _ in range(100):
        port = secrets.SystemRandom().randrange(20_000, 32_000)
        if port_is_free(host, port):
            return port
    raise AddressError(f"no free port of {host} was found between 20000 and 32000; set port")


def port_is_free(host: str, port: int) -> bool:
    """Whether nothing listens there. vLLM itself would not notice: it shares a port with any process that allows it."""
    with _bindable_socket(host) as sock:
        try:
            sock.bind((host, port))
        except OSError:
            return False
        return True


def _bindable_socket(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    # Connections of a server that has just ended linger on its port without holding it.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock
