"""Ranks that stay: processes of one group that are started once and run one function after another.

Most of what two ranks cost on a CPU is their start and their imports. A launcher's own work is not tried here: that is
done by `test_resume_ranks`, `test_nodes` and `test_caption_ranks`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from typing import Any

from racro_pl.cli import run
from racro_pl.serving.addresses import free_port
from tests.helpers.preloaded import CONTEXT

LIMIT_S = 240.0
"""Ranks that wait for each other for ever are ended after so many seconds."""


class Ranks:
    """Starts the processes on first use, and again after a failure.

    Args:
        count: how many ranks.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._ranks: list[ProcessPoolExecutor] = []
        self._pids: list[int] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call ``function(rank, count, *arguments)`` on every rank at once.

        Returns:
            Per rank what it returned (no tensors: they would be shared memory).

        Raises:
            AssertionError: the ranks took longer than ``LIMIT_S``.
            Exception: what the function raised on a rank; the other ranks are ended.
        """
        if not self._ranks:
            self._start()
        calls = [rank.submit(function, index, self.count, *arguments) for index, rank in enumerate(self._ranks)]
        done, running = wait(calls, LIMIT_S, FIRST_EXCEPTION)
        failed = [call for call in done if call.exception()]
        if failed or running:
            self.close(kill=True)
        for call in failed:
            call.result()
        assert not running, f"{len(running)} of {self.count} ranks did not end within {LIMIT_S:g} s"
        return [call.result() for call in calls]

    def _start(self) -> None:
        port = free_port("127.0.0.1")
        self._ranks = [
            ProcessPoolExecutor(1, CONTEXT, _join_group, (index, self.count, port)) for index in range(self.count)
        ]
        self._pids = [pid.result() for pid in [rank.submit(os.getpid) for rank in self._ranks]]

    def close(self, kill: bool = False) -> None:
        """End the processes, which may hang in a collective if ``kill``."""
        for pid in self._pids if kill else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for rank in self._ranks:
            rank.shutdown(cancel_futures=True)
        self._ranks, self._pids = [], []


def run_rank(rank: int, count: int, words: list[str]) -> int:
    """``racro-pl WORDS`` on one rank; its exit status."""
    return run(words)


def _join_group(rank: int, count: int, port: int) -> None:
    """Set what torchrun sets; the group is made by whoever asks for it first."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "tests",
    }  # fmt: skip
    import torch
    from lightning.pytorch.utilities import rank_zero_only

    torch.set_num_threads(1)
    rank_zero_only.rank = rank  # Lightning has read the environment when it was imported, before it was set
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """A killed test process leaves no ranks."""
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        time.sleep(1.0)
    os._exit(1)
