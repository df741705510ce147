"""What the scorer needs of a reasoner, whichever way it is reached."""

from __future__ import annotations

import abc
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields

from racro_pl.serving.replies import CUT, NO_ANSWER, why_empty
from racro_pl.text.answers import visible_text
from racro_pl.types import Messages, RacroError


class ReasonerError(RacroError):
    """The reasoner cannot be used as configured: unreachable, another model, or settings it refuses."""


@dataclass(frozen=True)
class Reply:
    """A reasoner's answer to one prompt, or why there is none. Exactly one of ``text`` and ``error`` is set."""

    text: str | None = None
    error: str | None = None
    """``kind: detail``; the kind is a short fixed phrase, for counting."""
    truncated: bool = False
    """Whether the length limit cut what the model wrote."""

    def __post_init__(self) -> None:
        if (self.text is None) == (self.error is None):
            raise ValueError("Reply takes either a text or an error, not both and not neither")

    @property
    def kind(self) -> str:
        """The error's kind, without its detail."""
        return (self.error or "").split(":", 1)[0]

    @property
    def came(self) -> bool:
        """Whether the model wrote at all, be it without a visible answer."""
        return self.text is not None or self.kind == NO_ANSWER

    def visible(self) -> Reply:
        """This reply, or an error when all that its text holds are thoughts or white space: no answer is no score."""
        if self.text is None or visible_text(self.text).strip():
            return self
        kind, detail = why_empty(self.text, CUT[0] if self.truncated else "")
        return Reply(error=f"{kind}: {detail}", truncated=self.truncated)


@dataclass(frozen=True)
class Usage:
    """What a reasoner's replies used."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Thoughts included."""
    cost: float = 0.0
    """Money, in the currency of the prices; 0 without prices."""
    unmetered: int = 0
    """Replies whose server reported no usage."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) + getattr(other, name) for name in USAGE_FIELDS))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) - getattr(other, name) for name in USAGE_FIELDS))


USAGE_FIELDS = tuple(field.name for field in fields(Usage))


class UsageMeter:
    """Adds up the usage of replies, from any thread.

    Args:
        prices: of a million prompt tokens and of a million completion tokens; None where nothing is paid.
    """

    def __init__(self, prices: tuple[float, float] | None = None) -> None:
        self._prices = prices or (0.0, 0.0)
        self._lock = threading.Lock()
        self._total = Usage()

    def add(self, tokens: tuple[int, int] | None) -> None:
        """Count one reply, of prompt and completion tokens; None when they are not known."""
        if tokens is None:
            used = Usage(unmetered=1)
        else:
            cost = sum(count * price for count, price in zip(tokens, self._prices, strict=True)) / 1e6
            used = Usage(*tokens, cost)
        with self._lock:
            self._total += used

    @property
    def total(self) -> Usage:
        """Everything so far."""
        with self._lock:
            return self._total


class Reasoner(abc.ABC):
    """A frozen text model that answers chats. Cheap to build: nothing connects or loads before ``check`` or use."""

    _clock: BusyClock | None = None
    """Runs while prompts are worked on."""
    _meter: UsageMeter | None = None
    """Counts what replies use."""

    @property
    @abc.abstractmethod
    def identity(self) -> str:
        """Model and sampling settings: two reasoners of one identity may share a cache of answers."""

    @property
    @abc.abstractmethod
    def deterministic(self) -> bool:
        """Whether the same prompt always gets the same answer (greedy decoding)."""

    @abc.abstractmethod
    def check(self) -> None:
        """Make sure that the reasoner answers, before a run starts.

        Raises:
            ReasonerError: it does not; the message says what was found and what to change.
        """

    @abc.abstractmethod
    def submit(self, prompts: Sequence[Messages]) -> list[Future[Reply]]:
        """Ask, without waiting. A fault of one prompt is that prompt's ``Reply.error``, never an exception."""

    def submit_seeded(self, prompts: Sequence[Messages], seeds: Sequence[int]) -> list[Future[Reply]]:
        """As ``submit``, drawing each answer from a seed of its own where this program does the sampling.

        A server samples as it likes: its batches change from run to run, and with them the numbers that it draws from.
        Seeds are from 0 to 2**63 - 1.
        """
        return self.submit(prompts)

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of everything; prompts under way end with an error. The reasoner may be used again afterwards."""

    @property
    def busy_seconds(self) -> float:
        """Wall-clock seconds so far during which at least one prompt was being worked on."""
        return self._clock.seconds if self._clock is not None else 0.0

    @property
    def usage(self) -> Usage:
        """What all its replies so far used, checks and failures included."""
        return self._meter.total if self._meter is not None else Usage()

    @property
    def priced(self) -> bool:
        """Whether its usage has a price, so that ``usage.cost`` says what was paid."""
        return False


class BusyClock:
    """Seconds during which at least one of several overlapping jobs was running; any thread may start or stop one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._since = 0.0
        self._total = 0.0

    def start(self) -> None:
        """A job begins."""
        with self._lock:
            if self._running == 0:
                self._since = time.monotonic()
            self._running += 1

    def stop(self) -> None:
        """A job has ended."""
        with self._lock:
            self._running -= 1
            if self._running == 0:
                self._total += time.monotonic() - self._since

    @property
    def seconds(self) -> float:
        """The total so far, the running stretch included."""
        with self._lock:
            return self._total + (time.monotonic() - self._since if self._running else 0.0)
