"""Chat completions as servers really send them: visible text, split-off thoughts, why they ended, what they used.

Where the fields stand (each checked against its server's documentation; see docs/reasoners.md): thoughts in
``message.reasoning_content`` (vLLM, SGLang, llama.cpp, LM Studio) or ``message.reasoning`` (newer vLLM, Ollama,
OpenRouter); the content as text, or as a list of parts (Mistral); errors inside a response of status 200 (OpenRouter).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from racro_pl.text.answers import visible_text

NO_ANSWER = "no answer"
"""The reply has no visible answer: only thoughts, or nothing."""
FILTERED = "content filter"
BROKEN_OFF = "broken off"
"""The server ended the answer in the middle: what there is of it must not be graded."""
PROMPT_CUT = "prompt cut"
MAX_COUNT = 10**9
"""Largest number of tokens that is believed."""
SHORTEST_CONTEXT = 512
"""No server is given a shorter context, in tokens: a prompt of which fewer were read has not been cut."""
MAX_ERROR_CHARS = 10_000
CUT = ("length", "max_tokens", "model_length")
"""Values of ``finish_reason`` that mean: the length limit cut the reply."""
BREAKS = ("error", "abort", "content_filter")
"""Values of ``finish_reason`` that mean: neither the model nor the length limit ended the reply."""
_SHOWN_CHARS = 200

# What every tokenizer in use keeps apart: it merges no letters over white space, no letters with digits, and no sign
# after a word with what follows the white space. So each of these is at least one token. Letters and marks of other
# scripts count as letters, and "don't" as one word: some tokenizers have them as one token.
_LETTER = r"[A-Za-z\u0080-\U0010ffff]"
_SIGN = r"!-/:-@\[-`{-~"
_LEAST_TOKENS = re.compile(rf"{_LETTER}+(?:'{_LETTER}+)*|[0-9]+|(?<![0-9{_SIGN}])[{_SIGN}]+(?=\s|$)")


@dataclass(frozen=True)
class Completion:
    """A chat completion."""

    text: str
    """What the model wrote; thoughts that the server split off come first, in ``<think>`` tags."""
    finish_reason: str
    """As the server names it; empty when it does not."""
    problem: tuple[str, str] | None
    """Kind and detail of why the text holds no visible answer, or not all of it; None when it holds one."""

    @property
    def truncated(self) -> bool:
        """Whether the length limit cut it."""
        return self.finish_reason in CUT


class MalformedReply(Exception):
    """A response that is no chat completion; its text says what is missing."""


def read_completion(data: Any) -> Completion:
    """Read a decoded response.

    Raises:
        MalformedReply: no completion is in it.
    """
    try:
        choice = data["choices"][0]
        message = choice["message"]
        content = message.get("content")
        # vLLM renamed the field; both spellings are served.
        thoughts = message.get("reasoning_content") or message.get("reasoning")
        finish = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise MalformedReply("no choices[0].message in it") from None
    if not (content is None or isinstance(content, (str, list))):
        raise MalformedReply(f"the message's content is {type(content).__name__}, not text")
    shown, thought = _parts(content) if isinstance(content, list) else (content or "", "")
    thought = (thoughts if isinstance(thoughts, str) else "") or thought
    text = f"<think>{thought}</think>{shown}" if thought else shown
    finish = finish[:40] if isinstance(finish, str) else ""
    error = choice.get("error") or data.get("error")
    refusal = message.get("refusal")
    said = server_error(error) if error else (refusal if isinstance(refusal, str) else "")
    if not visible_text(text).strip():
        return Completion(text, finish, why_empty(text, finish, said[:_SHOWN_CHARS]))
    if not error and finish not in BREAKS:
        return Completion(text, finish, None)
    detail = f"after {len(text)} characters{_because(finish, said[:_SHOWN_CHARS] if error else '')}"
    return Completion(text, finish, (FILTERED if finish == "content_filter" else BROKEN_OFF, detail))


def _parts(content: list[Any]) -> tuple[str, str]:
    """Text and thoughts of a content that is a list of parts; images and other parts hold neither.

    Raises:
        MalformedReply: it has parts, and none of a known kind.
    """
    shown: list[str] = []
    thought: list[str] = []
    known = not content
    for part in content:
        if isinstance(part, str):
            shown.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            (thought if part.get("type") in ("thinking", "reasoning") else shown).append(part["text"])
        elif isinstance(part, dict) and part.get("type") in ("thinking", "reasoning"):
            thought.extend(_texts(part.get("thinking")))
        else:
            continue
        known = True
    if not known:
        raise MalformedReply("the message's content is a list without a text in it")
    return "".join(shown), "".join(thought)


def _texts(value: Any) -> Iterator[str]:
    for item in value if isinstance(value, list) else [value]:
        text = item.get("text") if isinstance(item, dict) else item
        if isinstance(text, str):
            yield text


def why_empty(text: str, finish: str, said: str = "") -> tuple[str, str]:
    """Kind and detail for a reply without a visible answer.

    Args:
        text: what was written, in ``<think>`` tags where it is thoughts.
        finish: the server's ``finish_reason``; empty when there is none.
        said: a message that came with it.
    """
    because = _because(finish)
    if finish == "content_filter":
        return FILTERED, f"the server withheld the answer{_because(finish, said)}"
    if finish == "error" or said:
        return NO_ANSWER, f"empty{_because(finish, said)}"
    if not text.strip():
        cut = " (cut before the answer began: raise max_tokens, or switch thinking off)" if finish in CUT else ""
        return NO_ANSWER, f"empty text{because}{cut}"
    return NO_ANSWER, f"only thoughts, {len(text)} characters{because}; {_thoughts_advice(finish)}"


def _because(finish: str, said: str = "") -> str:
    return (f", finish_reason {finish!r}" if finish else "") + (f": {said!r}" if said else "")


def _thoughts_advice(finish: str) -> str:
    if finish in CUT:
        return "raise max_tokens, or switch thinking off (extra_body)"
    return (
        "if the answer stands among them, the server's reasoning parser does not fit the model: serve with the right "
        "one or without; else switch thinking off (extra_body)"
    )


def server_error(error: Any) -> str:
    """What an error object says; for whatever else stands there, as much of it as is useful."""
    found = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    try:
        text = found if isinstance(found, str) else str(error)
    except RecursionError:  # nested as deep as JSON may be
        text = "an error object that is nested too deep to be shown"
    return " ".join(text[:MAX_ERROR_CHARS].split())


def read_usage(data: Any) -> tuple[int, int] | None:
    """Prompt and completion tokens that a response reports; None when it reports none that can be believed."""
    usage = data.get("usage") if isinstance(data, dict) else None
    if not isinstance(usage, dict):
        return None
    prompt, completion = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    if prompt is None and completion is None:
        return None
    return prompt or 0, completion or 0


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None


def is_cut(messages: list[dict[str, Any]], read: int) -> bool:
    """Whether a server has read less than the whole prompt.

    Args:
        read: the prompt's tokens, as the server reports them.
    """
    # Short prompts are believed: a small model's tokenizer may have the sentences of our prompts as single tokens, as
    # the embedded ones do, and some servers report 0 for what they had in a cache.
    return SHORTEST_CONTEXT <= read < least_tokens(messages)


def least_tokens(messages: list[dict[str, Any]]) -> int:
    """A lower bound on the tokens of a chat's texts by any common tokenizer: runs of letters, digits and end signs.

    English has about 1.1 tokens for each.

    Example:
        >>> least_tokens([{"role": "user", "content": "Is it 12, or isn't it?"}])
        7
    """
    texts: list[str] = []
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        texts += [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return sum(len(_LEAST_TOKENS.findall(text)) for text in texts)
