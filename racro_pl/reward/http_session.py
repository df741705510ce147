"""The event loop of an ``HttpReasoner``: its requests, their order, and when they end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from racro_pl.reward.reasoner import BusyClock, Reply, UsageMeter
from racro_pl.serving.chat_client import TIMEOUT, ChatClient, Fault
from racro_pl.serving.loop_thread import LoopThread
from racro_pl.serving.replies import PROMPT_CUT, MalformedReply, is_cut, least_tokens, read_completion, read_usage
from racro_pl.types import Messages

SERVER_DOWN = "server down"
WRONG_MODEL = "wrong model"


@dataclass(frozen=True, eq=False)
class Request:
    """A chat on its way."""

    payload: dict[str, Any]
    model: str | None
    """What the server has to call itself in the answer; None when that is not known."""
    deadline: float
    """``time.monotonic()`` at which it ends, also when its turn has not come."""
    submitted: float = field(default_factory=time.monotonic)
    future: Future[Reply] = field(default_factory=Future)


class HttpSession(LoopThread):
    """The requests to one server, each in its turn.

    Args:
        client: the connections.
        concurrency: requests in flight at once.
        deadline_s: seconds from a request's first attempt until it is given up.
        clock: runs while a request is in flight.
        meter: counts the tokens of every response, whatever becomes of it: all are paid for.
    """

    def __init__(
        self, client: ChatClient, concurrency: int, deadline_s: float, clock: BusyClock, meter: UsageMeter
    ) -> None:
        super().__init__(client, "reasoner-http")
        self._concurrency = concurrency
        self._deadline_s = deadline_s
        self._clock = clock
        self._meter = meter
        self._tasks: set[asyncio.Task[None]] = set()
        self._unanswered_in_a_row = 0
        self._down_since = 0.0
        self._slots = asyncio.Semaphore(concurrency)

    def start(self, requests: Sequence[Request]) -> None:
        """Begin requests, from any thread."""
        self.loop.call_soon_threadsafe(self._start, requests)

    def _start(self, requests: Sequence[Request]) -> None:
        for request in requests:
            task = self.loop.create_task(self._answer(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request) -> None:
        try:
            reply = await self._ask_in_turn(request)
        except asyncio.CancelledError:
            request.future.set_result(Reply(error="closed: the reasoner was closed before it answered"))
            raise
        except Exception as error:  # not a fault of the network but of this program: let the caller see it
            request.future.set_exception(error)
        else:
            request.future.set_result(reply)

    async def _ask_in_turn(self, request: Request) -> Reply:
        try:
            async with asyncio.timeout_at(request.deadline):  # the loop's clock is time.monotonic
                await self._slots.acquire()
        except TimeoutError:
            return Reply(error=f"{TIMEOUT}: not asked, its deadline came before its turn")
        try:
            return await self._ask(request)
        finally:
            self._slots.release()

    async def _ask(self, request: Request) -> Reply:
        if self._down_since > request.submitted:
            error = f"not asked, the {self._unanswered_in_a_row} requests before got no answer"
            return Reply(error=f"{SERVER_DOWN}: {error}")
        deadline = min(request.deadline, time.monotonic() + self._deadline_s)
        self._clock.start()
        try:
            data = await self.client.call("POST", "chat/completions", request.payload, deadline)
            self._meter.add(read_usage(data))
            require_model(data, request.model)
            reply = read_reply(data, request.payload["messages"])
        except Fault as fault:
            reply = Reply(error=str(fault))
            if fault.heals:  # and yet did not, in all the attempts that are allowed
                self._unanswered_in_a_row += 1
                if self._unanswered_in_a_row >= self._concurrency:
                    self._down_since = time.monotonic()
                return reply
        finally:
            self._clock.stop()
        self._unanswered_in_a_row = 0
        return reply


def read_reply(data: Any, messages: Messages) -> Reply:
    """The reply in a decoded response to a chat.

    Raises:
        Fault: there is none, or the server has not read the whole prompt.
    """
    try:
        completion = read_completion(data)
    except MalformedReply as problem:
        raise Fault("bad response", str(problem)) from None
    used = read_usage(data)
    if used is not None and is_cut(messages, used[0]):
        raise Fault(
            PROMPT_CUT,
            f"the server read {used[0]} tokens of a prompt of at least {least_tokens(messages)}: it cuts long prompts "
            "without an error; give it a longer context (Ollama: OLLAMA_CONTEXT_LENGTH or num_ctx)",
        )
    if completion.problem is None:
        return Reply(text=completion.text, truncated=completion.truncated)
    kind, detail = completion.problem
    return Reply(error=f"{kind}: {detail}", truncated=completion.truncated)


def require_model(data: Any, expected: str | None) -> None:
    """Refuse an answer in which the server calls itself something else: its rewards would be another model's.

    Raises:
        Fault: ``wrong model``.
    """
    found = data.get("model") if isinstance(data, dict) else None
    if expected is not None and isinstance(found, str) and found != expected:
        raise Fault(WRONG_MODEL, f"{found[:100]!r} answered; when the run began it was {expected!r}")
