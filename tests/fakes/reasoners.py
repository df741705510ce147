"""A reasoner whose answer is a function of the caption, for tests of the training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from racro_pl.reward.reasoner import Reasoner, ReasonerError, Reply
from racro_pl.types import Messages


class ScriptedReasoner(Reasoner):
    """Answers at once with ``script(prompt text)``; a script that returns None is a failed call."""

    def __init__(self, script: Callable[[str], str | None], up: bool = True) -> None:
        self.script = script
        self.up = up

    @property
    def identity(self) -> str:
        return "scripted"

    @property
    def deterministic(self) -> bool:
        return False

    def check(self) -> None:
        if not self.up:
            raise ReasonerError("the scripted reasoner is down")

    def submit(self, prompts: Sequence[Messages]) -> list[Future[Reply]]:
        futures = []
        for messages in prompts:
            text = self.script(messages[-1]["content"])
            future: Future[Reply] = Future()
            future.set_result(Reply(text=text) if text is not None else Reply(error="down: scripted"))
            futures.append(future)
        return futures

    def close(self) -> None:
        pass
