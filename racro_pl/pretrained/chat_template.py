"""A model's chat template: from a chat to the text that the model reads, in bounded time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from racro_pl.pretrained.sandbox import run_apart
from racro_pl.types import Messages, RacroError

MAX_CHARS = 2**18
"""Of a template; the longest published ones have some 20,000."""


@dataclass(frozen=True)
class ChatTemplate:
    """A template and the special tokens that it may name."""

    source: str
    what: str
    """Names the model in errors."""
    variables: dict[str, Any] = field(default_factory=dict)

    def render(self, messages: Messages) -> str:
        """The text of a chat up to where the assistant's turn begins, as transformers renders it.

        Raises:
            RefusalError: the template refuses the chat, or is broken.
            SandboxError: it does not end.
        """
        return str(run_apart(["render", self.source, messages, self.variables], f"{self.what}: its chat template"))


def chat_template_of(owner: Any, tokenizer: Any, what: str) -> ChatTemplate:
    """The chat template of a processor or tokenizer.

    Args:
        owner: has ``chat_template``: a text, or several by name of which ``default`` counts.
        tokenizer: has the special tokens.
        what: names the model in errors.

    Raises:
        RacroError: there is none.
    """
    source = owner.chat_template
    if isinstance(source, dict):
        source = source.get("default")
    if not source:
        raise RacroError(
            f"{what} has no chat template: expected an instruction-tuned model, whose folder holds chat_template.jinja "
            "(or chat_template in tokenizer_config.json)"
        )
    if len(source) > MAX_CHARS:
        raise RacroError(f"{what}: its chat template has {len(source)} characters; expected at most {MAX_CHARS}")
    return ChatTemplate(source, what, dict(tokenizer.special_tokens_map))


def switch_thinking(template: ChatTemplate, on: bool) -> ChatTemplate:
    """The template with its variable ``enable_thinking`` set.

    Raises:
        RacroError: it writes the same text whether that is true or false.
        RefusalError, SandboxError: as :meth:`ChatTemplate.render`.
    """
    chat: Messages = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    switched = {
        way: replace(template, variables=template.variables | {"enable_thinking": way}) for way in (True, False)
    }
    if switched[True].render(chat) == switched[False].render(chat):
        raise RacroError(
            f"{template.what}: policy.thinking is {str(on).lower()}, but its chat template has no enable_thinking; "
            "leave policy.thinking out"
        )
    return switched[on]


def check_template(template: ChatTemplate, messages: Messages, expected: Sequence[str]) -> list[str]:
    """Render a chat, and tell which of its texts the template drops.

    Returns:
        Those of ``expected`` that are not in what the model would read.

    Raises:
        RefusalError, SandboxError: as :meth:`ChatTemplate.render`.
    """
    text = template.render(messages)
    return [part for part in expected if part.strip() not in text]


def without_system(messages: Messages) -> Messages:
    """The chat with its system text at the start of the user's first turn, for templates without a system role."""
    if not messages or messages[0]["role"] != "system":
        return messages
    system, first, *rest = messages
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
