"""What a user may have meant by a flag, key or name that there is not."""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
from collections.abc import Iterable
from importlib import import_module
from typing import NoReturn

from racro_pl.terminal import ArgumentParser

_UNKNOWN = re.compile(r"""(?:[Uu]nrecognized arguments?:|accept option|Option) ['"]?(--)?([A-Za-z][\w.-]*)""")
_MEANT = "did you mean"
_CLASS = re.compile(r"class_path '([\w.]+)'")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the most similar of the known names, or nothing where none is similar."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"; {_MEANT} {found[0]!r}?" if found else ""


def with_suggestion(message: str, parser: argparse.ArgumentParser) -> str:
    """A parser's complaint, with what may have been meant where it is about an unknown flag or key.

    Args:
        parser: the one that made it; its subcommands' flags are known names too.
    """
    unknown = _UNKNOWN.search(message)
    if unknown is None or _MEANT in message:  # a parser inside a parser has said so
        return message
    dashes, name = unknown[1] or "", unknown[2]
    classes = _CLASS.findall(message)
    known = _parameters(classes[-1]) if classes and "." not in name else _flags(parser)
    return message + did_you_mean(dashes + name, [dashes + each for each in known])


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    """The long flags of a parser and of its subcommands, without their dashes."""
    names = [name[2:] for name in parser._option_string_actions if name.startswith("--")]
    for action in parser._actions:
        if isinstance(action.choices, dict):
            names += [name for each in action.choices.values() if isinstance(each, argparse.ArgumentParser)
                      for name in _flags(each)]  # fmt: skip
    return names


def _parameters(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    # The parser has imported it already: its complaint is about the class's arguments.
    return list(inspect.signature(getattr(import_module(module), name)).parameters)


class CommandParser(ArgumentParser):
    """argparse's, whose complaint about an unknown flag says which one may have been meant."""

    def error(self, message: str) -> NoReturn:
        """As argparse's."""
        super().error(with_suggestion(message, self))
