"""API keys: read from the environment, never stored, and announced before they leave this machine."""

from __future__ import annotations

import os
import sys

from racro_pl.reward.reasoner import ReasonerError
from racro_pl.serving.network import is_loopback

_announced: set[tuple[str, str]] = set()
"""URLs and variables that this process has named so far."""


def read_key(api_key_env: str) -> str:
    """The key in a variable of the environment.

    Raises:
        ReasonerError: there is none, or it cannot be one.
    """
    key = os.environ.get(api_key_env, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        found = "holds characters that no key has" if key else "is not set"
        raise ReasonerError(
            f"the environment variable {api_key_env} (the reasoner's api_key_env) {found}: put the API key there"
        )
    return key


def announce(url: str, api_key_env: str) -> None:
    """Say on standard error, once, that a key will be sent to another machine.

    A configuration from elsewhere may name any URL and any variable: this line shows where the key goes.
    """
    if is_loopback(url) or (url, api_key_env) in _announced:
        return
    _announced.add((url, api_key_env))
    line = f"sending the API key in {api_key_env} to {url}"
    if url.startswith("http://"):
        line = f"warning: {line}, unencrypted (http): others on the way can read it; use https or a tunnel"
    print(line, file=sys.stderr, flush=True)
