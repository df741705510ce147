"""Stand-ins for reasoner servers, each with the manners that its documentation describes. They reason about nothing."""

from __future__ import annotations

import http.server
import json
import re
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

Body = dict[str, Any]
Response = tuple[int, Any]
ANSWER = r"So \boxed{42}."
THOUGHT = "Six times seven."


class StandIn:
    """An OpenAI-compatible server on a free port.

    Args:
        reply: status and JSON for a chat's body.
        models: status and JSON of ``/v1/models``.
        certificate: file with a certificate and its key, to serve https.
    """

    def __init__(
        self,
        reply: Callable[[Body], Response],
        models: Response = (200, {"object": "list", "data": [{"id": "tiny"}]}),
        certificate: Path | None = None,
    ) -> None:
        outer = self
        self.bodies: list[Body] = []
        self.headers: list[dict[str, str]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def _send(self, status: int, data: Any) -> None:
                body = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                self._send(*models)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.bodies.append(body)
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                self._send(*reply(body))

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 128  # of five, a busy machine refuses some calls of a step

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> StandIn:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


def completion(
    content: Any = ANSWER,
    *,
    model: str = "tiny",
    finish: str | None = "stop",
    usage: tuple[int, int] | None = (100, 20),
    **message: Any,
) -> Body:
    """A chat completion; further arguments are fields of its message."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    body: Body = {"object": "chat.completion", "model": model, "choices": [choice]}
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return body


def token_count(body: Body) -> int:
    """Tokens of a chat by a tokenizer that has one for each word and each sign, and four for a turn."""
    return sum(len(re.findall(r"\w+|[^\w\s]", message["content"])) + 4 for message in body["messages"])


def refuse(message: str, **fields: Any) -> Response:
    return 400, {"error": {"message": message, "type": "invalid_request_error", **fields}}


def openai_reasoning(body: Body) -> Response:
    """A hosted reasoning model: its own name for the limit, no sampling settings, hidden thoughts that count."""
    if "max_tokens" in body:
        return refuse(
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
            code="unsupported_parameter",
        )
    for name in ("temperature", "top_p"):
        if body.get(name, 1) != 1:
            return refuse(f"Unsupported value: '{name}' does not support {body[name]} with this model.")
    if body.get("max_completion_tokens", 1000) < 16:
        return refuse("Could not finish the message because max_tokens or model output limit was reached.")
    return 200, completion(model="o-1-2026-01-01", usage=(token_count(body), 500))


def thinking_vllm(body: Body) -> Response:
    """vLLM or SGLang with a reasoning parser: thoughts in a field of their own, none when switched off."""
    if body.get("chat_template_kwargs", {}).get("enable_thinking") is False:
        return 200, completion()
    if body["max_tokens"] < 100:
        return 200, completion(None, finish="length", reasoning_content=THOUGHT, usage=(50, body["max_tokens"]))
    return 200, completion("\n\n" + ANSWER, reasoning_content=THOUGHT)


def llama_cpp(context: int) -> Callable[[Body], Response]:
    """llama-server: takes any model name, and refuses a prompt that its context does not hold."""

    def reply(body: Body) -> Response:
        count = token_count(body)
        if count >= context:
            return refuse(
                "the request exceeds the available context size. try increasing the context size",
                type="exceed_context_size_error", n_prompt_tokens=count, n_ctx=context,
            )  # fmt: skip
        return 200, completion(model=body["model"], reasoning_content=THOUGHT, usage=(count, 30))

    return reply


def ollama(context: int) -> Callable[[Body], Response]:
    """Ollama: cuts a long prompt to its context without a word, and says so in ``usage`` alone."""

    def reply(body: Body) -> Response:
        return 200, completion(model=body["model"], reasoning=THOUGHT, usage=(min(token_count(body), context), 30))

    return reply


def lm_studio(context: int) -> Callable[[Body], Response]:
    """LM Studio: an overflow is a response of status 200 that holds an error."""

    def reply(body: Body) -> Response:
        if token_count(body) > context:
            text = "The number of tokens to keep from the initial prompt is greater than the context length."
            return 200, {"error": text}
        return 200, completion(model=body["model"], reasoning_content=THOUGHT)

    return reply


def router(body: Body) -> Response:
    """A router to several providers (OpenRouter): a provider's error comes with status 200."""
    return 200, {"error": {"message": "Provider returned error", "code": 502, "metadata": {"provider_name": "x"}}}
