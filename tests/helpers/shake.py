"""Finds tests that hold only because a thread happened to be quick or slow.

    python -m pytest -p tests.helpers.shake --shake caller   # who hands work to another thread is slow
    python -m pytest -p tests.helpers.shake --shake worker   # who receives it is slow

Sleeps where threads hand something over: the first times in each test always, later ones at random. A test that fails
by this fails on a busy machine some day. Processes that a test starts are not delayed.
"""

from __future__ import annotations

import asyncio
import functools
import http.server
import queue
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

ALWAYS = 300
"""Delays of a test before they get rare."""
LATER = 0.03
"""Probability of one after that: a training run hands over thousands of times."""
SECONDS = (0.01, 0.06)

HANDOVERS: list[tuple[Any, str, bool]] = [
    (threading.Thread, "start", True),
    (threading.Thread, "_bootstrap_inner", False),
    (Future, "set_result", True),
    (Future, "set_result", False),
    (Future, "set_exception", True),
    (Future, "set_exception", False),
    (asyncio.BaseEventLoop, "call_soon_threadsafe", True),
    (asyncio.BaseEventLoop, "call_soon_threadsafe", False),
    (threading.Event, "set", True),
    (threading.Event, "set", False),
    (queue.Queue, "put", True),
    (http.server.BaseHTTPRequestHandler, "handle_one_request", False),
]
"""Class, method, and whether it is delayed after the call (a slow caller) or before it (a slow worker)."""


class Shaker:
    """Delays one side of every handover."""

    def __init__(self, side: str, seed: int = 0) -> None:
        self.side = side
        self.left = ALWAYS
        self._random = random.Random(seed)

    def install(self, patch: Callable[[Any, str, Any], object]) -> None:
        """Wrap the methods with ``patch``, which is ``setattr`` or a monkeypatch's."""
        for owner, name, after in HANDOVERS:
            if after == (self.side == "caller"):
                patch(owner, name, self._delayed(getattr(owner, name), after))

    def _delayed(self, method: Callable[..., Any], after: bool) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not after:
                self._sleep()
            result = method(*args, **kwargs)
            if after:
                self._sleep()
            return result

        return call

    def _sleep(self) -> None:
        self.left -= 1
        if self.left >= 0 or self._random.random() < LATER:
            time.sleep(self._random.uniform(*SECONDS))


class _Plugin:
    def __init__(self, shaker: Shaker) -> None:
        self._shaker = shaker

    def pytest_runtest_setup(self) -> None:
        self._shaker.left = ALWAYS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shake", choices=["caller", "worker"], required=True, help="the side of a handover that is slow")


def pytest_configure(config: pytest.Config) -> None:
    shaker = Shaker(config.getoption("--shake"))
    shaker.install(setattr)
    config.pluginmanager.register(_Plugin(shaker))
