"""What the trainer asks of a rollout engine."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import PolicySettings
from racro_pl.types import Prompt, Question, Rollout, at_least, require_all

EncodedQuestion = tuple[Question, Prompt]


@dataclass(frozen=True)
class RunInfo:
    """What an engine outside this process has to know about the run."""

    policy: PolicySettings
    folder: Path
    """The run's folder."""
    run_id: str
    """The same on all ranks of this run, and of no other run."""
    rank: int = 0
    """Global rank."""
    ranks: int = 1
    """How many there are."""
    nodes: int = 1
    """Over how many machines they are spread."""
    key: str = field(default="", repr=False)
    """A secret of this run, the same on all ranks, for servers that it starts."""


Placement = Literal["in_process", "same_device", "server"]
"""``in_process``: with the weights that are trained. ``same_device``: by a server that shares this process's device in
turns. ``server``: beside this process, which has time for other work meanwhile."""


class RolloutEngine(abc.ABC):
    """Samples captions.

    Args:
        group_size: captions per question (G); advantages compare the captions of a group, so at least 2.
        max_new_tokens: caption length limit in tokens.
        temperature: sampling temperature; log-probs are taken at the same temperature.
    """

    def __init__(self, group_size: int = 4, max_new_tokens: int = 1024, temperature: float = 1.0) -> None:
        require_all(
            "rollout",
            (
                group_size >= 2,
                f"group_size is {group_size}; a group of one has nothing to compare with, expected 2 or more",
            ),
            *at_least(1, max_new_tokens=max_new_tokens),
            (
                0 < temperature < math.inf,
                f"temperature is {temperature}; expected a finite number above 0 (greedy captions are all alike)",
            ),
        )
        self.group_size = group_size
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature

    def open(self, run: RunInfo) -> None:  # noqa: B027 (an engine in this process has nothing to do)
        """Called before captions are asked for, more than once where fitting is followed by testing.

        Raises:
            RacroError: this engine cannot sample for this run.
        """

    def close(self) -> None:  # noqa: B027
        """Let go of servers and connections; called when the run ends, however it ends."""

    @property
    @abc.abstractmethod
    def placement(self) -> Placement:
        """Where captions are sampled."""

    @property
    def waiting_seconds(self) -> float:
        """Seconds so far in which this process only waited for captions."""
        return 0.0

    def metrics(self) -> dict[str, float]:
        """What the engine has last measured about itself, for the log."""
        return {}

    @abc.abstractmethod
    def sample(
        self, captioner: Captioner, questions: Sequence[EncodedQuestion], adapter_version: int
    ) -> Iterator[Rollout]:
        """Yield each question's group as soon as it is sampled, in the order of the questions.

        A server is asked for all of them at once, before the first is waited for.

        Args:
            captioner: the policy as it is now.
            questions: B questions with their prompts.
            adapter_version: number of optimizer steps that the policy has seen, for the record.

        Raises:
            RolloutError: the engine is lost or cannot be trusted; the groups before were good.
        """

    @abc.abstractmethod
    def caption_greedily(
        self, captioner: Captioner, questions: Sequence[EncodedQuestion], adapter_version: int
    ) -> list[str]:
        """One greedy caption per question, for evaluation; arguments as for :meth:`sample`."""
