"""A reasoner on an OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, or a hosted service.

Settings for each kind of server are in docs/reasoners.md.

All requests live on one event loop in a background thread. Each ends by its own deadline, whatever the server does.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import Any
from urllib.parse import urlsplit

import httpx

from racro_pl.reward import http_check
from racro_pl.reward.api_key import announce, read_key
from racro_pl.reward.http_session import HttpSession, Request, require_model
from racro_pl.reward.reasoner import BusyClock, Reasoner, ReasonerError, Reply, UsageMeter
from racro_pl.serving.addresses import issued_key
from racro_pl.serving.chat_client import ChatClient, Fault, connection_settings
from racro_pl.serving.network import clean_url
from racro_pl.serving.replies import read_usage
from racro_pl.types import Messages, require

LIST_LIMIT_S = 15.0
"""Seconds for the server to list its models; it needs no computing."""
REFUSED_LIMIT_S = 2.0
"""Of these, seconds for a server to take connections: where nothing listens, waiting rarely helps."""


class HttpReasoner(Reasoner):
    """Asks a server, many prompts at a time.

    When as many requests in a row as may be in flight get no answer in all their attempts, the server counts as down:
    what was already waiting in line fails at once instead of waiting out its deadline after them. Later prompts try
    again.

    Args:
        url: The server's base URL, such as ``http://127.0.0.1:8000/v1``; without a path, ``/v1`` is added.
        model: Name under which the server serves the model. Default: the only one it serves. With a name, a server
            without ``/models`` will do.
        temperature: Of the reasoner's sampling; 0 is greedy, null leaves the field out.
        top_p: Of the reasoner's sampling; null leaves the field out.
        max_tokens: Longest answer, thoughts included; prompt and answer must fit the server's context. Null leaves
            the field out, where another field bounds answers (``max_completion_tokens`` in ``extra_body``).
        concurrency: Requests in flight at once; the others wait in line.
        deadline_s: Seconds from a request's first attempt until it is given up, retries and waits included.
        attempt_s: Seconds for one attempt.
        attempts: Most attempts per request. Only timeouts, lost connections, 408, 409, 425, 429 and 5xx are
            tried again.
        backoff_s: Wait before the second attempt, doubled for each further one, give or take a half.
        api_key_env: Name of the environment variable that holds the API key. Default: no key is sent.
        extra_body: More fields for the request, such as ``{"chat_template_kwargs": {"enable_thinking": false}}``;
            null leaves a field out.
        verify: File or folder with the certificates to trust, for a private authority. Default: ``SSL_CERT_FILE``
            or ``SSL_CERT_DIR``, else the public ones.
        price_per_million_tokens: What a million prompt tokens and a million completion tokens cost, in any
            currency; logged per step and in total, and what ``budget`` is measured by. Default: nothing is paid.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000/v1",
        model: str | None = None,
        temperature: float | None = 1.0,
        top_p: float | None = 1.0,
        max_tokens: int | None = 4096,
        concurrency: int = 64,
        deadline_s: float = 600.0,
        attempt_s: float = 300.0,
        attempts: int = 8,
        backoff_s: float = 0.5,
        api_key_env: str | None = None,
        extra_body: dict[str, Any] | None = None,
        verify: str | None = None,
        price_per_million_tokens: tuple[float, float] | None = None,
    ) -> None:
        url = clean_url(url)
        named = api_key_env is None or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", api_key_env)
        # Not repeated: it may be the key itself.
        require(
            bool(named), "an api_key_env that is not the name of a variable", "one like MY_API_KEY, with the key in it"
        )
        require(
            temperature is None or 0 <= temperature < math.inf,
            f"temperature={temperature}",
            "a finite number, 0 (greedy) or more, or null",
        )
        require(top_p is None or 0 < top_p <= 1, f"top_p={top_p}", "a share above 0, at most 1, or null")
        require(max_tokens is None or max_tokens >= 1, f"max_tokens={max_tokens}", "at least 1, or null")
        prices = price_per_million_tokens
        free = prices is None or all(0 <= price < math.inf for price in prices)
        require(free, f"price_per_million_tokens={prices}", "two prices of 0 or more")
        require(concurrency >= 1, f"concurrency={concurrency}", "at least 1")
        require(deadline_s > 0 and attempt_s > 0, f"deadline_s={deadline_s}, attempt_s={attempt_s}", "positive seconds")
        require(attempts >= 1, f"attempts={attempts}", "at least 1")
        require(backoff_s >= 0, f"backoff_s={backoff_s}", "0 or more seconds")
        self.url = url if urlsplit(url).path else f"{url}/v1"
        self.model = model
        self.sampling: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        self.extra_body = dict(extra_body or {})
        self.concurrency = concurrency
        self.deadline_s = deadline_s
        self.attempt_s = attempt_s
        self.attempts = attempts
        self.backoff_s = backoff_s
        self.api_key_env = api_key_env
        self.verify = verify
        self.price_per_million_tokens = prices
        self._lock = threading.Lock()
        self._session: HttpSession | None = None
        self._clock: BusyClock = BusyClock()
        self._meter: UsageMeter = UsageMeter(prices)
        self._answered_as: str | None = None
        """What the server called itself when it was checked; it need not be the name that it is asked by."""

    @property
    def identity(self) -> str:
        """Model name, sampling settings and extra fields.

        Not the URL: the same model keeps its cache when its server moves. Other weights under the same name need
        another cache file.

        Raises:
            ReasonerError: ``model`` is not set and the server cannot be asked.
        """
        settings = {"model": self._known_model(), **self.sampling, "extra_body": self.extra_body}
        return json.dumps(settings, sort_keys=True)

    @property
    def deterministic(self) -> bool:
        """Whether decoding is greedy."""
        return self.extra_body.get("temperature", self.sampling["temperature"]) == 0

    @property
    def priced(self) -> bool:
        return self.price_per_million_tokens is not None

    def check(self) -> None:
        """List the served models, compare the name and the context, and ask a first question like any other.

        Raises:
            ReasonerError: the server is unreachable, hangs, serves another model, has too short a context, refuses, or
                reports no usage though prices are set.
        """
        model, context, unlisted = self._list()
        settings = self._settings(model)
        longest = settings.get("max_tokens", settings.get("max_completion_tokens"))
        http_check.require_room(self.url, context, longest)
        first = {**settings, "messages": http_check.FIRST_QUESTION}
        try:
            data = self._call("POST", "chat/completions", first, self.deadline_s)
            self._meter.add(read_usage(data))
            http_check.inspect_first_answer(self.url, data, self.priced)
            require_model(data, self._answered_as)
            self._answered_as = data["model"] if isinstance(data.get("model"), str) else None
        except Fault as fault:
            lists = f"does not list its models ({unlisted})" if unlisted else f"serves {model!r}"
            raise ReasonerError(f"the reasoner at {self.url} {lists} but answers no chat: {fault}") from None

    def submit(self, prompts: Sequence[Messages], deadline: float = math.inf) -> list[Future[Reply]]:
        """Send prompts; each future has its reply by the request's deadline, counted from when it gets its turn.

        Args:
            prompts: chats.
            deadline: ``time.monotonic()`` at which they end too, the wait in line included.

        Raises:
            ReasonerError: ``model`` is not set, ``check`` did not find it yet, and the server cannot be asked.
        """
        if not prompts:
            return []
        settings = self._settings(self._known_model())
        requests = [Request({**settings, "messages": messages}, self._answered_as, deadline) for messages in prompts]
        for request in requests:
            request.future.set_running_or_notify_cancel()  # one under way is ended by close(), not by its future
        self._open().start(requests)
        return [request.future for request in requests]

    def close(self) -> None:
        """Cancel what is under way and close the connections."""
        with self._lock:
            session, self._session = self._session, None
            self._answered_as = None
        if session is not None:
            session.close()

    def request_body(self, messages: Messages) -> dict[str, Any]:
        """What is sent for one chat.

        Raises:
            ReasonerError: ``model`` is not set and the server cannot be asked.
        """
        return {**self._settings(self._known_model()), "messages": messages}

    def async_client(self) -> httpx.AsyncClient:
        """An HTTP client for this server, with its key, for calls of one's own (streamed ones)."""
        return httpx.AsyncClient(**connection_settings(self.url, self._api_key(), self.verify))

    def _api_key(self) -> str | None:
        """The variable's, or that of a server which this run has started itself."""
        return issued_key(self.url) if self.api_key_env is None else read_key(self.api_key_env)

    def _settings(self, model: str) -> dict[str, Any]:
        fields = {"model": model, **self.sampling, "stream": False, **self.extra_body}
        return {name: value for name, value in fields.items() if value is not None}

    def _open(self) -> HttpSession:
        with self._lock:
            if self._session is None:
                key = self._api_key()
                settings = (self.attempts, self.attempt_s, self.backoff_s)
                client = ChatClient(self.url, key, *settings, verify=self.verify)
                if self.api_key_env is not None:
                    announce(self.url, self.api_key_env)
                self._session = HttpSession(client, self.concurrency, self.deadline_s, self._clock, self._meter)
            return self._session

    def _call(
        self, method: str, path: str, payload: dict[str, Any] | None, limit_s: float, refused_s: float = math.inf
    ) -> Any:
        session = self._open()
        work = session.client.call(method, path, payload, time.monotonic() + limit_s, refused_s=refused_s)
        try:
            return session.submit(work).result()
        except CancelledError:
            raise Fault("closed", "the reasoner was closed before it answered") from None

    def _known_model(self) -> str:
        return self.model or self._list()[0]

    def _list(self) -> tuple[str, int | None, Fault | None]:
        """The model that is asked and its context, by the server's list; without one, why there is none.

        Raises:
            ReasonerError: the server cannot be reached or does not serve ``model``; or has no list, and no ``model``
                is named.
        """
        try:
            limit_s = min(LIST_LIMIT_S, self.deadline_s)
            served = http_check.read_models(self._call("GET", "models", None, limit_s, REFUSED_LIMIT_S))
        except Fault as fault:
            if self.model is None or not fault.kind.startswith(("HTTP 4", "HTTP 5", "bad response")):
                raise http_check.no_list(self.url, fault) from None
            return self.model, None, fault
        self.model = http_check.served_model(self.url, self.model, served)
        return self.model, served[self.model], None
