"""A bounded line: some requests are answered, a few wait, the others are told to come back."""

from __future__ import annotations

import asyncio

from racro_pl.service.errors import ServiceError
from racro_pl.service.limits import Limits

RETRY_AFTER_S = 5


class Admission:
    """Lets requests in, before their bodies are read."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._turns = asyncio.Semaphore(limits.working)
        self._inside = 0
        self.working = 0

    @property
    def waiting(self) -> int:
        """Requests that are in and not being answered yet."""
        return self._inside - self.working

    def enter(self) -> Place:
        """A place in line.

        Raises:
            ServiceError: status 429: the line is full.
        """
        if self._inside >= self._limits.working + self._limits.waiting:
            raise ServiceError(
                429, "too many requests; try again later", "busy", headers={"Retry-After": str(RETRY_AFTER_S)}
            )
        self._inside += 1
        return Place(self)


class Place:
    """One request's place; to be left exactly once, however the request ends (leaving again does nothing)."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._has_turn = False
        self._left = False

    async def turn(self) -> None:
        """Wait to be answered."""
        await self._admission._turns.acquire()
        self._has_turn = True
        self._admission.working += 1

    def leave(self) -> bool:
        """Make room; False where that was done before."""
        if self._left:
            return False
        self._left = True
        self._admission._inside -= 1
        if self._has_turn:
            self._admission.working -= 1
            self._admission._turns.release()
        return True
