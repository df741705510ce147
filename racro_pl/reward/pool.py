"""Several servers of one model as one reasoner: the least busy one is asked, and one that fails is suspended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property

from racro_pl.reward.http import HttpReasoner
from racro_pl.reward.http_session import SERVER_DOWN
from racro_pl.reward.reasoner import BusyClock, Reasoner, ReasonerError, Reply, Usage
from racro_pl.serving.chat_client import CONNECTION_FAILED, TIMEOUT
from racro_pl.serving.replies import FILTERED, NO_ANSWER, PROMPT_CUT
from racro_pl.terminal import get_logger
from racro_pl.types import Messages, require

log = get_logger(__name__)
CLOSED = "closed: the reasoner was closed before it answered"
PROMPT_FAULTS = ("HTTP 400", "HTTP 413", "HTTP 422", NO_ANSWER, FILTERED, PROMPT_CUT)
"""Of the prompt, for instance when it is too long, or of what the model makes of it: no other server does better."""


MAY_HEAL = (TIMEOUT, CONNECTION_FAILED, SERVER_DOWN, "HTTP 429")
"""After these, and after 5xx, a server may do better a little later."""


@dataclass
class _Endpoint:
    """A server and how it does."""

    reasoner: HttpReasoner
    in_flight: int = 0
    asked: int = 0
    """Prompts so far."""
    away: bool = False


@dataclass
class _Job:
    """A prompt on its way through the pool."""

    messages: Messages
    future: Future[Reply]
    deadline: float
    """``time.monotonic()`` at which it is given up."""
    tried: set[int] = field(default_factory=set)
    """Endpoints that failed it since the last round."""
    fault: Reply | None = None
    """What it failed with last."""
    may_heal: bool = False
    """Whether one of them may do better a little later."""


class ReasonerPool(Reasoner):
    """Distributes prompts over servers. Each prompt ends by its deadline, whatever the servers do.

    A server that does not answer, or answers 429 or 5xx after its own attempts, is suspended; its prompts go to the
    others, again and again while there is time, and it is probed every ``probe_s`` seconds. The same happens to one
    whose response cannot be read, but each server gets such a prompt only once. Give the servers few ``attempts`` and a
    short ``attempt_s``: the pool moves on instead of waiting.
    """

    def __init__(self, reasoners: list[HttpReasoner], deadline_s: float = 600.0, probe_s: float = 10.0) -> None:
        """
        Args:
            reasoners: Clients of servers that serve the same model, with the same sampling settings.
            deadline_s: Seconds from ``submit`` until a prompt is given up.
            probe_s: Seconds between two probes of a suspended server.
        """
        require(bool(reasoners), "no reasoners", "at least one")
        priced = {reasoner.priced for reasoner in reasoners}
        require(
            len(priced) == 1, "servers with and without a price", "price_per_million_tokens of all or none (0 is one)"
        )
        require(deadline_s > 0 and probe_s > 0, f"deadline_s={deadline_s}, probe_s={probe_s}", "positive seconds")
        self.reasoners = reasoners
        self.deadline_s = deadline_s
        self.probe_s = probe_s
        self._endpoints = [_Endpoint(reasoner) for reasoner in reasoners]
        self._lock = threading.Lock()
        self._timers: dict[threading.Timer, _Job | None] = {}
        self._open = True
        self._clock: BusyClock = BusyClock()

    @cached_property
    def identity(self) -> str:
        """The servers' common one.

        Raises:
            ReasonerError: no server can be asked for its model's name, or they serve different things.
        """
        found: dict[str, str] = {}
        problems = []
        for reasoner in self.reasoners:
            try:
                found.setdefault(reasoner.identity, reasoner.url)
            except ReasonerError as error:
                problems.append(str(error))
        if not found:
            raise ReasonerError("; ".join(problems))
        if len(found) > 1:
            (one, first), (other, second), *_ = found.items()
            raise ReasonerError(f"the pool's servers differ: {first} is {one}, {second} is {other}")
        return next(iter(found))

    @property
    def deterministic(self) -> bool:
        """Whether every server decodes greedily."""
        return all(reasoner.deterministic for reasoner in self.reasoners)

    @property
    def usage(self) -> Usage:
        """That of all servers together; a prompt that several of them answered counts at each."""
        return sum((reasoner.usage for reasoner in self.reasoners), Usage())

    @property
    def priced(self) -> bool:
        return self.reasoners[0].priced

    def check(self) -> None:
        """Check every server; one that is away is suspended and named in the log.

        Raises:
            ReasonerError: none answers, or they serve different things.
        """
        problems = []
        for endpoint in self._endpoints:
            try:
                endpoint.reasoner.check()
            except ReasonerError as error:
                problems.append(str(error))
                self._set_aside(endpoint, str(error))
        if len(problems) == len(self._endpoints):
            raise ReasonerError("no server of the pool can be used: " + "; ".join(problems))
        _ = self.identity
        # One that was away joins later, with the others' model. Asking for its name then would keep prompts waiting.
        name = next(reasoner.model for reasoner in self.reasoners if reasoner.model is not None)
        for reasoner in self.reasoners:
            reasoner.model = reasoner.model or name

    def submit(self, prompts: Sequence[Messages]) -> list[Future[Reply]]:
        """Send prompts, each to the least busy server, of equally busy ones to the one asked least so far."""
        with self._lock:
            self._open = True
        deadline = time.monotonic() + self.deadline_s
        jobs = [_Job(messages, Future(), deadline) for messages in prompts]
        for job in jobs:
            job.future.set_running_or_notify_cancel()
            self._clock.start()
            self._dispatch(job)
        return [job.future for job in jobs]

    def close(self) -> None:
        """End what is under way and close the connections."""
        with self._lock:
            self._open = False
            timers, self._timers = self._timers, {}
        for timer, job in timers.items():
            timer.cancel()
            if job is not None:
                self._finish(job, Reply(error=CLOSED))
        for endpoint in self._endpoints:
            endpoint.reasoner.close()
            endpoint.away = False  # nothing probes it any more

    # ------------------------------------------------------------------ a prompt's way

    def _dispatch(self, job: _Job) -> None:
        end = job.fault if time.monotonic() >= job.deadline else None
        with self._lock:
            if not self._open:  # asking would open the connections again
                end = Reply(error=CLOSED)
            index = self._pick(job.tried)
            if index is not None and end is None:
                self._endpoints[index].in_flight += 1
                self._endpoints[index].asked += 1
        if end is not None:
            self._finish(job, end)
            return
        if index is None:  # all have failed it: another round a little later, while there is time
            job.tried.clear()
            job.may_heal = False
            self._later(self.probe_s, lambda: self._dispatch(job), job)
            return
        answer = self._ask(job, self._endpoints[index].reasoner)
        answer.add_done_callback(lambda future: self._done(job, index, future))

    def _ask(self, job: _Job, reasoner: HttpReasoner) -> Future[Reply]:
        try:
            (answer,) = reasoner.submit([job.messages], job.deadline)
        except ReasonerError as error:  # its model's name is not known yet, and it cannot be asked
            answer = Future()
            answer.set_result(Reply(error=f"{CONNECTION_FAILED}: {error}"))
        except RuntimeError:  # its event loop was closed: by close(), or this is a bug
            if self._open:
                raise
            answer = Future()
            answer.set_result(Reply(error=CLOSED))
        self._close_late(reasoner)
        return answer

    def _close_late(self, reasoner: HttpReasoner) -> None:
        """Close again what was asked while ``close`` ran, and may have opened its connections after it."""
        if not self._open:
            # In a thread: closing waits for an event loop, and this may be one.
            threading.Thread(target=reasoner.close, name="pool-close", daemon=True).start()

    def _pick(self, tried: set[int]) -> int | None:
        left = [index for index in range(len(self._endpoints)) if index not in tried]
        if not left:
            return None
        ends = self._endpoints
        return min(left, key=lambda index: (ends[index].away, ends[index].in_flight, ends[index].asked))

    def _done(self, job: _Job, index: int, future: Future[Reply]) -> None:
        endpoint = self._endpoints[index]
        with self._lock:
            endpoint.in_flight -= 1
            is_open = self._open
        try:
            reply = future.result()
        except Exception as error:  # a bug in the client: the caller must see it
            self._clock.stop()
            job.future.set_exception(error)
            return
        if reply.text is not None or not is_open or reply.kind in PROMPT_FAULTS:
            self._finish(job, reply)
            return
        self._set_aside(endpoint, reply.error or "")
        job.tried.add(index)
        # What the job's own deadline cut short says less than a fault before it.
        if job.fault is None or reply.kind != TIMEOUT or time.monotonic() < job.deadline:
            job.fault = reply
        job.may_heal |= reply.kind in MAY_HEAL or reply.kind.startswith("HTTP 5")
        all_tried = len(job.tried) == len(self._endpoints)
        wait_s = self.probe_s if all_tried else 0.0
        if time.monotonic() + wait_s >= job.deadline or (all_tried and not job.may_heal):
            self._finish(job, job.fault)
        else:
            self._dispatch(job)

    def _finish(self, job: _Job, reply: Reply) -> None:
        self._clock.stop()
        job.future.set_result(reply)

    # ------------------------------------------------------------------ a server's health

    def _set_aside(self, endpoint: _Endpoint, reason: str) -> None:
        with self._lock:
            if endpoint.away:
                return
            endpoint.away = True
        log.warning("reasoner at %s suspended: %s", endpoint.reasoner.url, reason)
        self._later(self.probe_s, lambda: self._probe(endpoint), None)

    def _probe(self, endpoint: _Endpoint) -> None:
        try:
            endpoint.reasoner.check()
        except ReasonerError:
            self._later(self.probe_s, lambda: self._probe(endpoint), None)
            return
        finally:
            self._close_late(endpoint.reasoner)
        with self._lock:
            endpoint.away = False
        log.warning("reasoner at %s answers again", endpoint.reasoner.url)

    def _later(self, seconds: float, what: Callable[[], None], job: _Job | None) -> None:
        def run() -> None:
            with self._lock:
                if self._timers.pop(timer, self) is self:
                    return  # close() has dealt with it
            what()

        timer = threading.Timer(seconds, run)
        timer.daemon = True
        with self._lock:
            if not self._open and job is None:
                return
            self._timers[timer] = job
        timer.start()
