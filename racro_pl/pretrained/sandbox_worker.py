"""The process in which a stranger's chat template or pattern runs. Started by ``sandbox.py`` as a script.

One JSON line in, one JSON line out, ``{"result": ...}`` or ``{"error": "..."}``:

- ``["render", template, messages, variables]``: the text that a chat template makes of a chat.
- ``["match", pattern, names]``: those names that a regular expression matches as a whole.

It imports jinja2 alone, so that it starts in a tenth of a second. The environment is the one in which transformers
renders chat templates (``transformers.utils.chat_template_utils``); tests compare the two.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY_LIMIT = 2**30
"""Bytes of address space: a template can ask for as much text as it likes."""
ALARM_S = 8
"""Seconds after which a request ends the process. Its parent kills it sooner, unless the parent itself was killed."""
MAX_TEXT = 16 * 2**20
"""Characters of a rendered chat."""


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant wrote; here it changes nothing."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_whole"), [], [], body).set_lineno(lineno)

    def _whole(self, caller: Any) -> str:
        return caller()


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template)


def render(template: str, messages: list[Any], variables: dict[str, Any]) -> str:
    """The text of a chat, ready for the assistant's turn."""
    text = _compiled(template).render(
        **variables, messages=messages, tools=None, documents=None, add_generation_prompt=True
    )
    if len(text) > MAX_TEXT:
        raise jinja2.TemplateError(f"it makes {len(text)} characters of a chat; at most {MAX_TEXT} are taken")
    return text


def match(pattern: str, names: list[str]) -> list[str]:
    """The names that ``pattern`` matches as a whole."""
    compiled = re.compile(pattern)
    return [name for name in names if compiled.fullmatch(name)]


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows; the time limit then has to do
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def main() -> None:
    """Answer requests until the pipe closes, which it does when the parent dies."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _limit_memory()
    operations: dict[str, Callable[..., Any]] = {"render": render, "match": match}
    print(json.dumps("ready"), file=replies, flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        if hasattr(signal, "alarm"):
            signal.alarm(ALARM_S)
        try:
            reply = {"result": operations[name](*arguments)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"[:500]}
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
