"""Progress of long stages: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from racro_pl.terminal import Console

LINE_EVERY_S = 30.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        # Since the start: replies come in bursts.
        return Text(f"{task.completed / max(task.elapsed or 0.0, 1e-3):.1f}/s", style="progress.data.speed")


@contextmanager
def stage(title: str, total: int, speak: bool = True) -> Iterator[Callable[[], None]]:
    """Show the progress of ``total`` items; call what this yields after each. Silent without ``speak``."""
    if not speak:
        yield lambda: None
    elif sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as progress:
            bar = progress.add_task(title, total=total)
            yield lambda: progress.advance(bar)
    else:
        lines = _Lines(title, total)
        yield lines.advance
        lines.say()


class _Lines:
    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self.started = self.said = time.monotonic()

    def advance(self) -> None:
        self.done += 1
        if time.monotonic() - self.said > LINE_EVERY_S:
            self.say()

    def say(self) -> None:
        self.said = time.monotonic()
        seconds = max(self.said - self.started, 1e-3)
        left = f", {(self.total - self.done) * seconds / self.done:.0f} s left" if 0 < self.done < self.total else ""
        print(f"{self.title}: {self.done} of {self.total}, {self.done / seconds:.1f}/s{left}", file=sys.stderr)
