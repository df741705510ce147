"""What a server says about itself: the models that it serves, and whether it answers a first question."""

from __future__ import annotations

from typing import Any

from racro_pl.reward.http_session import read_reply
from racro_pl.reward.reasoner import ReasonerError
from racro_pl.serving.chat_client import BAD_CERTIFICATE, TIMEOUT, Fault
from racro_pl.serving.replies import read_usage
from racro_pl.terminal import get_logger
from racro_pl.types import Messages

log = get_logger(__name__)
FIRST_QUESTION: Messages = [{"role": "user", "content": "What is 1 + 1? Answer in one word."}]


def read_models(data: Any) -> dict[str, int | None]:
    """Names of the served models in a decoded ``/models``, with their context in tokens where the server says it.

    Raises:
        Fault: it is no list of models.
    """
    entries = data.get("data") if isinstance(data, dict) else data
    if not isinstance(entries, list):
        raise Fault("bad response", "no list of models in it")
    served: dict[str, int | None] = {}
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            context = entry.get("max_model_len")
            served[entry["id"]] = context if isinstance(context, int) else None
    return served


def no_list(url: str, fault: Fault) -> ReasonerError:
    """The error for a server whose models cannot be listed."""
    hint = "start the reasoner's server, or correct the reasoner's url"
    if fault.kind == BAD_CERTIFICATE:
        hint = "for a private authority set the reasoner's verify, or SSL_CERT_FILE, to the file of its certificate"
    elif fault.kind == TIMEOUT:
        hint = "a server is there and hangs, or is still loading its model: look at its log"
    elif fault.kind.startswith(("HTTP 3", "HTTP 40")):
        hint = (
            "is this the base URL of an OpenAI-compatible server, and is api_key_env right? For a server without "
            "/models set the reasoner's model"
        )
    return ReasonerError(f"no reasoner at {url} ({fault}): {hint}")


def served_model(url: str, model: str | None, served: dict[str, int | None]) -> str:
    """The model of this name; without a name, the only one that is served.

    Raises:
        ReasonerError: it is not served; or no name is given, and there are several models or none.
    """
    names = ", ".join(map(repr, served))
    if model is None and len(served) != 1:
        raise ReasonerError(f"{url} serves several models or none ({names or 'none'}): set the reasoner's model to one")
    model = model or next(iter(served))
    if model not in served:
        raise ReasonerError(
            f"{url} serves {names or 'no model'}, not {model!r}: set the reasoner's model to a served name "
            "(or leave it out when there is one), or start the right server"
        )
    return model


def require_room(url: str, context: int | None, longest: Any) -> None:
    """Raise :class:`ReasonerError` for a context (tokens, if known) that the longest answer alone would fill."""
    if context is not None and isinstance(longest, int) and longest >= context:
        raise ReasonerError(
            f"the reasoner at {url} has a context of {context} tokens: max_tokens={longest} leaves no room "
            "for the prompt; lower the reasoner's max_tokens, or serve the model with a longer context"
        )


def inspect_first_answer(url: str, data: Any, priced: bool) -> None:
    """Read the answer to :data:`FIRST_QUESTION`; one without visible text is only told, since others may have some.

    Raises:
        Fault: it is no answer at all.
        ReasonerError: prices are set, and the server does not say what it used.
    """
    reply = read_reply(data, FIRST_QUESTION)
    if priced and read_usage(data) is None:
        raise ReasonerError(
            f"the reasoner at {url} reports no usage, so price_per_million_tokens cannot be charged: leave the prices "
            "(and the budget) out, or use a server that reports usage"
        )
    if reply.text is None:
        log.warning("the reasoner at %s gave no visible answer to its first question (%s)", url, reply.error)
