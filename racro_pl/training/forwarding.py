"""Captions on their way from a rollout server to the reasoner while the trainer learns from others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from racro_pl.reward.rewarder import Pending
from racro_pl.training.stream import PendingGroup
from racro_pl.types import Rollout


class Forwarding:
    """Sends each group to the reasoner the moment it arrives, from a thread of its own.

    Args:
        rollouts: waits for the groups of an engine elsewhere.
        submit: sends one to the reasoner; called under ``lock``.
        lock: held by whoever uses the reasoner's side meanwhile.
    """

    def __init__(self, rollouts: Iterator[Rollout], submit: Callable[[Rollout], Pending], lock: threading.Lock) -> None:
        self._rollouts = rollouts
        self._submit = submit
        self._lock = lock
        self._groups: list[PendingGroup] = []
        self._error: Exception | None = None
        self._stopped = False
        # A daemon: a run that ends by an exception must not wait for the network.
        self._thread = threading.Thread(target=self._run, name="captions-ahead", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for rollout in self._rollouts:
                with self._lock:
                    if self._stopped:
                        return
                    self._groups.append((rollout, self._submit(rollout)))
        except Exception as error:  # whoever waits for the groups must see it
            self._error = error

    def groups(self) -> tuple[list[PendingGroup], Exception | None]:
        """Wait for all of them; and what ended them early, if anything did."""
        self._thread.join()
        return self._groups, self._error

    def stop(self) -> None:
        """Send nothing any more. Does not wait: what still arrives is dropped."""
        with self._lock:
            self._stopped = True
