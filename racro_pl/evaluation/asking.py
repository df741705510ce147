"""Ask a reasoner many prompts, with a bounded number of them waiting, and take the replies as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import TypeVar

from racro_pl.reward import Reasoner, Reply
from racro_pl.types import Messages

_Key = TypeVar("_Key")


def ask_all(reasoner: Reasoner, prompts: Iterable[tuple[_Key, Messages]], window: int) -> Iterator[tuple[_Key, Reply]]:
    """Replies in the order of the prompts (keys and chats), of which at most ``window`` are under way.

    Prompts are handed over in halves of ``window``: an in-process reasoner makes its batches from what is waiting, and
    a server always has the next half while this one is read.
    """
    waiting: deque[tuple[_Key, Future[Reply]]] = deque()
    source = iter(prompts)
    half = max(1, window // 2)
    while True:
        if len(waiting) <= half:
            batch = list(islice(source, half))
            futures = reasoner.submit([messages for _, messages in batch])
            waiting.extend(zip((key for key, _ in batch), futures, strict=True))
            if not waiting:
                return
        key, future = waiting.popleft()
        yield key, future.result()
