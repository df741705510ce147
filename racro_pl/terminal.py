"""Ways to the terminal and the log that show strangers' text as it is, and let it do nothing (``text.printable``)."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable
from typing import Any, NoReturn

import rich.console
from rich.segment import Segment
from rich.text import Text

from racro_pl.text.printable import printable


class Console(rich.console.Console):
    """Rich's console with :func:`printable` at its exit: tables, panels, progress bars, status lines and all.

    Text is shown as it is: ``:cat:`` stays those five characters. Markup (``[red]``) in a text from outside must
    still be escaped where it is put together.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"emoji": False, **options})

    def render(self, *arguments: Any, **options: Any) -> Iterable[Segment]:
        """As rich's; rich's own control segments pass."""
        for segment in super().render(*arguments, **options):
            yield segment if segment.control else Segment(printable(segment.text, lines=True), segment.style)

    def say(self, text: str) -> None:
        """Print a text as it is: without markup and colours, each line whole."""
        self.print(text, markup=False, highlight=False, soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich's; escaped before it is measured, so that columns are wide enough."""
        return super().render_str(printable(text, lines=True), **options)


class ArgumentParser(argparse.ArgumentParser):
    """Python's, with :func:`printable` at its exit: a complaint repeats arguments, which a script may have made."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """As argparse's."""
        super().exit(status, message and printable(message, lines=True))


class _Printable(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = printable(record.getMessage()), ()
        return True


def get_logger(name: str) -> logging.Logger:
    """The logger of a module, whose records are printable for every handler, ours or not."""
    logger = logging.getLogger(name)
    if not any(isinstance(each, _Printable) for each in logger.filters):
        logger.addFilter(_Printable())
    return logger
