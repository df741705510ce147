"""What a configuration may import, and what it must not hold. Both are looked at before anything is built from it.

A configuration is a program: a ``class_path`` in it is imported, and importing runs code, before anything can tell
whether the class is one that belongs there. So without ``--allow-imports`` only this package, Lightning and torch can
be named. The switch is taken from the command line alone: a file cannot give itself permission.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings

from racro_pl.commands.moved import follow_moved
from racro_pl.commands.suggestions import with_suggestion
from racro_pl.text.printable import printable
from racro_pl.types import RacroError

FLAG = "--allow-imports"
TRUSTED = ("racro_pl", "lightning", "torch")
"""Packages whose classes a configuration may name."""
HELP = (
    "A configuration is a program: the classes that it names are imported and run. Read it before you use one that "
    f"others wrote. Classes outside {', '.join(TRUSTED)} need {FLAG} on the command line."
)
_DENIED = re.compile(r"(?:Importing|the configuration names) '([^']+)'(?: is not allowed|, which is outside)")
"""The parser's message, or ours inside it: of a part that may be of several kinds the parser gathers all complaints."""
_KEY_NAME = re.compile(
    r"^-{0,2}(?:[\w-]*(?:api|access|secret|private)[_-]?key|(?:(?:api|access|auth|hf|hub|bearer)[_-]?)?token|bearer|"
    r"[\w-]*(?:secret|password|passwd)|authorization|credentials?)$",
    re.IGNORECASE,
)
_KEY_VARIABLE = re.compile(r"^[A-Z][A-Z0-9_]*_(?:KEY|TOKEN|SECRET|PASSWORD)$")
_KEY_VALUE = re.compile(r"\b(?:sk-(?=\S*\d)[\w-]{16,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,})")
_URL_WITH_KEY = re.compile(r"://[^/\s@]+@|[?&](?:api_?key|key|token|access_token|password)=", re.IGNORECASE)


class GuardedErrors:
    """For a parser: an import that is not allowed is one line, a misspelt name is told with what may be meant."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        complaints, cause = [message], ex
        while cause is not None:  # what the parser tried next may have hidden it
            complaints.append(str(cause))
            cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
        if (found := _DENIED.search("\n".join(complaints))) is not None:
            raise RacroError(
                f"the configuration names {found[1]!r}, which is outside {', '.join(TRUSTED)}: importing it runs its "
                f"code. If you trust it, add {FLAG} to the command line"
            ) from ex
        super().error(printable(with_suggestion(message, self), lines=True), ex)  # type: ignore[misc, arg-type]
        raise AssertionError("a parser's error does not return")


class ConfigParser(GuardedErrors, ArgumentParser):
    """jsonargparse's."""


def guard(arguments: Sequence[str]) -> list[str]:
    """Restrict imports as the command line says, refuse keys in its files and flags, and follow classes that moved.

    Returns:
        The arguments without ``--allow-imports``, for the parser.

    Raises:
        RacroError: a key or password is written out.
    """
    restrict_imports(allow=FLAG in arguments)
    rest = [argument for argument in arguments if argument != FLAG]
    for shell in ("bash", "zsh"):
        if rest[-2:] == ["--print_completion", shell]:
            rest[-1] = f"shtab-{shell}"
    for name, value in _raw_settings(rest):
        refuse_keys(value, name)
        follow_moved(value)
    return rest


def restrict_imports(*, allow: bool) -> None:
    """Let class paths name trusted packages only; with ``allow``, all but what jsonargparse itself takes for dangerous.

    For the whole process, and for good: what was once restricted stays so.
    """
    set_parsing_settings(
        import_path_denylist=[] if allow else ["*"],
        import_path_allowlist=list(TRUSTED),
        # A dictionary for a server that happens to look like a class is data.
        instantiate_subclass_spec_in_any=False,
    )


def offer_completion() -> None:
    """Give parsers that are built from now on ``--print_completion bash`` (or zsh): needs the package shtab."""
    set_parsing_settings(add_print_completion_argument=True)


def refuse_keys(value: Any, name: str = "") -> None:
    """Raise when a setting holds a key or password: ``config.yaml``, logs and messages would repeat it.

    Args:
        value: of a setting: plain values, lists, mappings.
        name: the setting's, with dots. The message has it, and never the value.

    Raises:
        RacroError: it does.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            refuse_keys(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            flag = item.split("=", 1)[0] if isinstance(item, str) and item.startswith("--") else ""
            if flag and _KEY_NAME.search(flag):
                raise _key_problem(f"{name}: {flag}")
            refuse_keys(item, f"{name}.{index}")
    elif isinstance(value, str) and value:
        if _URL_WITH_KEY.search(value):
            raise RacroError(
                f"{name} is a URL with a user or password in it, or with a key, which config.yaml would keep; put the "
                "key into an environment variable (a reasoner's api_key_env names it)"
            )
        last = name.rsplit(".", 1)[-1]
        if _KEY_NAME.search(last) or _KEY_VARIABLE.search(last) or _KEY_VALUE.search(value):
            raise _key_problem(name)


def _key_problem(name: str) -> RacroError:
    return RacroError(
        f"{name} holds a key or password, which config.yaml and messages would repeat; put it into the environment "
        "(a reasoner's api_key_env names the variable; a vLLM server takes VLLM_API_KEY and all others as they are)"
    )


def _raw_settings(arguments: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Names and values of flags, and the contents of the files among them, as they stand, before any parsing."""
    for index, argument in enumerate(arguments):
        if not argument.startswith("-"):
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        if not equals:
            value = arguments[index + 1] if index + 1 < len(arguments) else ""
        yield "" if name in ("c", "config") else name.rstrip("+"), _read(value)


def _read(text: str) -> Any:
    """A flag's value as YAML; of a YAML or JSON file, what is in it. Where neither can be read the parser will say."""
    try:
        if text.endswith((".yaml", ".yml", ".json")) and Path(text).is_file():
            text = Path(text).read_text(encoding="utf-8")
        value = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return text
    return value
