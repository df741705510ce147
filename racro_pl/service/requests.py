"""Chat completion requests: parsed against a list of known fields, bounded, images as data URLs (or addresses)."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from racro_pl.service.errors import ServiceError, bad_request
from racro_pl.service.limits import Limits
from racro_pl.text.cleaning import clean_text

Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
FIELDS = ("model", "messages", "stream", "stream_options", "n", "racro")
SAMPLING_FIELDS = (
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "stop", "presence_penalty",
    "frequency_penalty", "user",
)  # fmt: skip
"""What chat clients send with every request. The server's own settings hold: the response names those not used."""
CAPTIONS = ("field", "stream")
ADDRESS_CHARACTERS = 2000
_DATA_URL = re.compile(r"data:image/(?:png|jpeg|webp);base64,", re.ASCII)


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: Role
    text: str
    images: tuple[bytes | str, ...] = ()
    """Encoded files, not opened yet, or where they are."""


@dataclass(frozen=True)
class ChatRequest:
    """What a client asks."""

    model: str
    turns: tuple[Turn, ...]
    stream: bool
    captions: Literal["field", "stream"]
    """``stream``: captions come first, as text of their own, before the answer."""
    unused: tuple[str, ...]
    """Fields of ``SAMPLING_FIELDS`` that came along."""


def parse_request(body: bytes, limits: Limits) -> ChatRequest:
    """Read a request's body.

    Raises:
        ServiceError: status 400 names the field; 413 where something is larger than its limit.
    """
    data = _load(body, limits)
    unknown = sorted(set(data) - {*FIELDS, *SAMPLING_FIELDS})
    if unknown:
        raise bad_request(
            f"unknown field, named in param; known ones: {', '.join((*FIELDS, *SAMPLING_FIELDS))}",
            "unknown",
            unknown[0][:40],
        )
    if data.get("n") not in (None, 1):
        raise bad_request("n has to be 1", "unsupported", "n")
    model, stream = data.get("model", ""), data.get("stream") or False
    if not isinstance(model, str) or len(model) > 200:
        raise bad_request("model has to be a text", "type", "model")
    if not isinstance(stream, bool):
        raise bad_request("stream has to be true or false", "type", "stream")
    _object(data.get("stream_options"), "stream_options", ("include_usage", "include_obfuscation"))
    own = _object(data.get("racro"), "racro", ("captions",))
    captions = own.get("captions", "field")
    if captions not in CAPTIONS:
        raise bad_request("racro.captions has to be field or stream", "value", "racro.captions")
    turns = _turns(data.get("messages"), limits)
    return ChatRequest(
        model=model,
        turns=turns,
        stream=stream,
        captions=captions,
        unused=tuple(name for name in SAMPLING_FIELDS if data.get(name) is not None),
    )


def _load(body: bytes, limits: Limits) -> dict[str, Any]:
    def refuse(text: str) -> Any:
        raise ValueError

    try:
        data = json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise bad_request("the body is not JSON", "json") from None
    if not isinstance(data, dict):
        raise bad_request("the body has to be a JSON object", "type")
    if not _within(data, limits.json_depth):
        raise bad_request(f"JSON nested deeper than {limits.json_depth}", "depth")
    return data


def _within(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_within(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_within(item, depth - 1) for item in value)
    return True


def _object(value: Any, name: str, known: tuple[str, ...]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or set(value) - set(known):
        raise bad_request(f"{name} has to be an object with no fields but {', '.join(known)}", "type", name)
    return value


def _turns(messages: Any, limits: Limits) -> tuple[Turn, ...]:
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages has to be a list that is not empty", "type", "messages")
    if len(messages) > limits.messages:
        raise bad_request(f"more than {limits.messages} messages", "too_many", "messages")
    turns = tuple(_turn(message, f"messages[{index}]", limits) for index, message in enumerate(messages))
    if sum(len(turn.text) for turn in turns) > limits.text_characters:
        raise ServiceError(413, f"more than {limits.text_characters} characters of text", "too_large", "messages")
    if sum(len(turn.images) for turn in turns) > limits.images:
        raise bad_request(f"more than {limits.images} images", "too_many", "messages")
    if turns[-1].role != "user":
        raise bad_request("the last message has to be the user's", "value", "messages")
    return turns


def _turn(message: Any, where: str, limits: Limits) -> Turn:
    if not isinstance(message, dict) or set(message) - {"role", "content", "name"}:
        raise bad_request("a message has role and content, and no other fields", "type", where)
    role = ROLES.get(message.get("role")) if isinstance(message.get("role"), str) else None  # type: ignore[arg-type]
    if role is None:
        raise bad_request(f"role has to be one of {', '.join(ROLES)}", "value", f"{where}.role")
    content = message.get("content")
    if isinstance(content, str):
        return Turn(role, clean_text(content))
    if not isinstance(content, list):
        raise bad_request("content has to be a text or a list of parts", "type", f"{where}.content")
    texts: list[str] = []
    images: list[bytes | str] = []
    for index, part in enumerate(content):
        here = f"{where}.content[{index}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(clean_text(part["text"]))
        elif kind == "image_url" and role == "user":
            images.append(_image(part.get("image_url"), here, limits))
        else:
            raise bad_request("a part is a text, or an image_url in a user's message", "type", here)
    return Turn(role, "\n".join(texts), tuple(images))


def _image(value: Any, where: str, limits: Limits) -> bytes | str:
    url = value.get("url") if isinstance(value, dict) else value
    if not isinstance(url, str):
        raise bad_request("image_url has to hold a url", "type", where)
    if limits.image_addresses and url.startswith("https://") and len(url) <= ADDRESS_CHARACTERS:
        return url
    head = _DATA_URL.match(url[:64])
    if head is None:
        raise bad_request(
            "images come as data:image/png, jpeg or webp URLs in base64; addresses are not fetched", "image_url", where
        )
    if (len(url) - head.end()) * 3 // 4 > limits.image_bytes:
        raise ServiceError(413, f"an image of more than {limits.image_bytes} bytes", "too_large", where)
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise bad_request("the image's base64 is broken", "image_base64", where) from None
