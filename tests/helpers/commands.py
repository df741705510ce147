"""Command lines in processes of their own that start at once: forked from one that has imported what they need.

That `python -m racro_pl` starts, and what a launcher makes of it, is not tried here: that is done by `test_nodes`,
`test_caption_ranks`, `test_soak` and `test_resume_ranks`.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from racro_pl.cli import run
from tests.helpers.preloaded import CONTEXT
from tests.helpers.ranks import end_with_parent


class Command:
    """Runs ``function(arguments)`` and exits with what it returns, in a session of its own.

    Args:
        arguments: the words of the command line.
        variables: to add to its environment.
        function: what is run; by default ``racro-pl`` itself.
    """

    def __init__(
        self, arguments: list[str], variables: dict[str, str], function: Callable[[list[str]], int] = run
    ) -> None:
        handle, name = tempfile.mkstemp(prefix="racro-output-")
        os.close(handle)
        self._output = Path(name)
        self._process = CONTEXT.Process(target=_begin, args=(function, arguments, os.environ | variables, name))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, minus n when signal n ended it; None while it runs."""
        return self._process.exitcode

    def wait_for(self, condition: Callable[[], bool], limit_s: float) -> None:
        """Return when the condition holds.

        Raises:
            AssertionError: it has ended before, or takes longer than the limit.
        """
        limit = time.monotonic() + limit_s
        while not condition():
            assert self.returncode is None, self.wait(0)
            assert time.monotonic() < limit
            time.sleep(0.02)

    def wait(self, limit_s: float) -> str:
        """Everything that it wrote, when it has ended.

        Raises:
            AssertionError: it takes longer than the limit; it is ended.
        """
        self._process.join(limit_s)
        hangs = self.returncode is None
        if hangs:
            self.kill()
        output = self._output.read_text(errors="replace")
        self._output.unlink()
        assert not hangs, f"hangs:\n{output}"
        return output

    def kill(self) -> None:
        """End it by SIGKILL, and what it has started in its session."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # not in a session of its own yet, or gone
            self._process.kill()
        self._process.join()


def _begin(function: Callable[[list[str]], int], arguments: list[str], environment: dict[str, str], name: str) -> None:
    os.setsid()
    output = os.open(name, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.exit(function(arguments))
