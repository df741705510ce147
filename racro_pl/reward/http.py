"""A reasoner behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, or a hosted service.

All requests live on one event loop in a background thread. Each ends by its own deadline, whatever the server does.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import Any
from urllib.parse import urlsplit

import httpx

from racro_pl.reward.http_session import HttpSession, Request, require_model
from racro_pl.reward.reasoner import BusyClock, Reasoner, ReasonerError, Reply, require
from racro_pl.serving.addresses import issued_key
from racro_pl.serving.chat_client import TIMEOUT, ChatClient, Fault, client_settings
from racro_pl.types import Messages

LIST_LIMIT_S = 15.0
"""Seconds for the server to list its models; it needs no computing."""


class HttpReasoner(Reasoner):
    """Asks a server, many prompts at a time.

    When as many requests in a row as may be in flight get no answer in all their attempts, the server counts as down:
    what was already waiting in line fails at once instead of waiting out its deadline behind them. Later prompts try
    again.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000/v1",
        model: str | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 4096,
        concurrency: int = 64,
        deadline_s: float = 600.0,
        attempt_s: float = 300.0,
        attempts: int = 8,
        backoff_s: float = 0.5,
        api_key_env: str | None = None,
        extra_body: dict[str, Any] | None = None,
    ) -> None:
        """
        Args:
            url: The server's base URL, such as ``http://127.0.0.1:8000/v1``; without a path, ``/v1`` is added.
            model: Name under which the server serves the model. Default: the only one it serves.
            temperature: Of the reasoner's sampling; 0 is greedy.
            top_p: Of the reasoner's sampling.
            max_tokens: Longest answer, thoughts included; prompt and answer must fit the server's context.
            concurrency: Requests in flight at once; the others wait in line.
            deadline_s: Seconds from a request's first attempt until it is given up, retries and waits included.
            attempt_s: Seconds for one attempt.
            attempts: Most attempts per request. Only timeouts, lost connections, 429 and 5xx are tried again.
            backoff_s: Wait before the second attempt, doubled for each further one, give or take a half.
            api_key_env: Name of the environment variable that holds the API key. Default: no key is sent.
            extra_body: More fields for the request, such as ``{"chat_template_kwargs": {"enable_thinking": false}}``.
        """
        parts = urlsplit(url)
        require(parts.scheme in ("http", "https") and bool(parts.hostname), f"url={url!r}", "http://host:port/v1")
        require(not parts.username and not parts.password, "a url with a user or password in it", "api_key_env")
        # The key itself, put here by mistake, would be in config.yaml and in messages.
        named = api_key_env is None or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", api_key_env)
        require(bool(named), "an api_key_env that is no name of a variable", "one like MY_API_KEY, with the key in it")
        require(temperature >= 0, f"temperature={temperature}", "0 (greedy) or more")
        require(0 < top_p <= 1, f"top_p={top_p}", "a share above 0, at most 1")
        require(max_tokens >= 1, f"max_tokens={max_tokens}", "at least 1")
        require(concurrency >= 1, f"concurrency={concurrency}", "at least 1")
        require(deadline_s > 0 and attempt_s > 0, f"deadline_s={deadline_s}, attempt_s={attempt_s}", "positive seconds")
        require(attempts >= 1, f"attempts={attempts}", "at least 1")
        require(backoff_s >= 0, f"backoff_s={backoff_s}", "0 or more seconds")
        self.url = url.rstrip("/") + ("/v1" if parts.path in ("", "/") else "")
        self.model = model
        self.sampling: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        self.extra_body = dict(extra_body or {})
        self.concurrency = concurrency
        self.deadline_s = deadline_s
        self.attempt_s = attempt_s
        self.attempts = attempts
        self.backoff_s = backoff_s
        self.api_key_env = api_key_env
        self._lock = threading.Lock()
        self._session: HttpSession | None = None
        self._clock = BusyClock()
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
        settings = {"model": self._resolve_model(), **self.sampling, "extra_body": self.extra_body}
        return json.dumps(settings, sort_keys=True)

    @property
    def deterministic(self) -> bool:
        """Whether decoding is greedy."""
        return self.extra_body.get("temperature", self.sampling["temperature"]) == 0

    @property
    def busy_seconds(self) -> float:
        """Seconds so far with at least one request in flight."""
        return self._clock.seconds

    def check(self) -> None:
        """List the served models, compare the name and the context, and have one token generated.

        Raises:
            ReasonerError: the server is unreachable, hangs, serves another model, has too short a context, or refuses.
        """
        model = self._resolve_model()
        context = self._served().get(model)
        longest = self.sampling["max_tokens"]
        if context is not None and longest >= context:
            raise ReasonerError(
                f"the reasoner at {self.url} has a context of {context} tokens: max_tokens={longest} leaves no room "
                "for the prompt; lower the reasoner's max_tokens, or serve the model with a longer context"
            )
        probe = {"messages": [{"role": "user", "content": "Hello"}], **self._settings(model), "max_tokens": 1}
        try:
            data = self._call("POST", "chat/completions", probe, self.deadline_s)
            choices = data.get("choices") if isinstance(data, dict) else None
            if not choices:  # an answer of one token may well have no text yet
                raise Fault("bad response", "no choices in it")
            require_model(data, self._answered_as)
            self._answered_as = data["model"] if isinstance(data.get("model"), str) else None
        except Fault as fault:
            raise ReasonerError(f"the reasoner at {self.url} serves {model!r} but answers no chat: {fault}") from None

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
        settings = self._settings(self._resolve_model())
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
        return {**self._settings(self._resolve_model()), "messages": messages}

    def async_client(self) -> httpx.AsyncClient:
        """An HTTP client for this server, with its key, for calls of one's own (streamed ones)."""
        return httpx.AsyncClient(**client_settings(self.url, self._api_key()))

    def _settings(self, model: str) -> dict[str, Any]:
        return {"model": model, **self.sampling, "stream": False, **self.extra_body}

    def _open(self) -> HttpSession:
        with self._lock:
            if self._session is None:
                client = ChatClient(self.url, self._api_key(), self.attempts, self.attempt_s, self.backoff_s)
                self._session = HttpSession(client, self.concurrency, self.deadline_s, self._clock)
            return self._session

    def _api_key(self) -> str | None:
        if self.api_key_env is None:
            return issued_key(self.url)
        key = os.environ.get(self.api_key_env, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            found = "holds characters that no key has" if key else "is not set"
            raise ReasonerError(
                f"the environment variable {self.api_key_env} (the reasoner's api_key_env) {found}: "
                "put the API key there"
            )
        return key

    def _call(self, method: str, path: str, payload: dict[str, Any] | None, limit_s: float) -> Any:
        session = self._open()
        work = session.client.call(method, path, payload, time.monotonic() + limit_s)
        try:
            return asyncio.run_coroutine_threadsafe(work, session.loop).result()
        except CancelledError:
            raise Fault("closed", "the reasoner was closed before it answered") from None

    def _resolve_model(self) -> str:
        if self.model is None:
            self.model = self._only_model(self._served())
        return self.model

    def _only_model(self, served: dict[str, int | None]) -> str:
        if len(served) != 1:
            names = ", ".join(map(repr, served)) or "none"
            raise ReasonerError(f"{self.url} serves several models or none ({names}): set the reasoner's model to one")
        return next(iter(served))

    def _served(self) -> dict[str, int | None]:
        """Names of the served models, with their context in tokens where the server says it."""
        try:
            data = self._call("GET", "models", None, min(LIST_LIMIT_S, self.deadline_s))
        except Fault as fault:
            hint = "start the reasoner's server, or correct the reasoner's url"
            if fault.kind == TIMEOUT:
                hint = "a server is there and hangs, or is still loading its model: look at its log"
            elif fault.kind.startswith(("HTTP 3", "HTTP 40")):
                hint = "is this the base URL of an OpenAI-compatible server, and is api_key_env right?"
            raise ReasonerError(f"no reasoner at {self.url} ({fault}): {hint}") from None
        entries = data.get("data") if isinstance(data, dict) else None
        served: dict[str, int | None] = {}
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("id"), str):
                context = entry.get("max_model_len")
                served[entry["id"]] = context if isinstance(context, int) else None
        if self.model is not None and self.model not in served:
            names = ", ".join(map(repr, served)) or "no model"
            raise ReasonerError(
                f"{self.url} serves {names}, not {self.model!r}: set the reasoner's model to a served name "
                "(or leave it out when there is one), or start the right server"
            )
        return served
