"""What the trainer asks of a rollout engine."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence

from racro_pl.policy.captioner import Captioner
from racro_pl.types import Prompt, Question, Rollout

EncodedQuestion = tuple[Question, Prompt]


class RolloutEngine(abc.ABC):
    """Samples captions.

    Args:
        group_size: captions per question (G); advantages compare the captions of a group, so at least 2.
        max_new_tokens: caption length limit in tokens.
        temperature: sampling temperature; log-probs are taken at the same temperature.
    """

    def __init__(self, group_size: int = 4, max_new_tokens: int = 1024, temperature: float = 1.0) -> None:
        problems = []
        if group_size < 2:
            problems.append(
                f"group_size is {group_size}; a group of one has nothing to compare with, expected 2 or more"
            )
        if max_new_tokens < 1:
            problems.append(f"max_new_tokens is {max_new_tokens}; expected 1 or more")
        if not temperature > 0:
            problems.append(f"temperature is {temperature}; expected more than 0 (greedy captions are all alike)")
        if problems:
            raise ValueError("rollout: " + "; ".join(problems))
        self.group_size = group_size
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature

    @abc.abstractmethod
    def sample(
        self, captioner: Captioner, questions: Sequence[EncodedQuestion], adapter_version: int
    ) -> Iterator[Rollout]:
        """Yield each question's group as soon as it is sampled, in the order of the questions.

        Args:
            captioner: the policy as it is now.
            questions: B questions with their prompts.
            adapter_version: number of optimizer steps that the policy has seen, for the record.
        """

    @abc.abstractmethod
    def describe(self, captioner: Captioner, questions: Sequence[EncodedQuestion]) -> list[str]:
        """One greedy caption per question, for evaluation."""
