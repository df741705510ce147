"""Captions sampled in process, by the very weights that learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from racro_pl.policy.captioner import Captioner
from racro_pl.rollout.engine import EncodedQuestion, Placement, RolloutEngine
from racro_pl.types import Rollout, at_least, require_all


class TransformersEngine(RolloutEngine):
    """Sampling by the policy that learns, each prompt read once for its whole group.

    Args:
        group_size: captions per question (G), at least 2.
        max_new_tokens: caption length limit in tokens.
        temperature: sampling temperature.
        questions_per_batch: questions sampled together; a batch is handed to the reasoner while the next is sampled.
    """

    placement: Placement = "in_process"

    def __init__(
        self,
        group_size: int = 4,
        max_new_tokens: int = 1024,
        temperature: float = 1.0,
        questions_per_batch: int = 8,
    ) -> None:
        super().__init__(group_size, max_new_tokens, temperature)
        require_all("rollout", *at_least(1, questions_per_batch=questions_per_batch))
        self.questions_per_batch = questions_per_batch

    def sample(
        self, captioner: Captioner, questions: Sequence[EncodedQuestion], adapter_version: int
    ) -> Iterator[Rollout]:
        for start in range(0, len(questions), self.questions_per_batch):
            batch = questions[start : start + self.questions_per_batch]
            prompts = [prompt for _, prompt in batch]
            captions = captioner.generate(prompts, self.group_size, self.max_new_tokens, self.temperature)
            for index, (question, prompt) in enumerate(batch):
                rows = slice(index * self.group_size, (index + 1) * self.group_size)
                yield Rollout(
                    question=question,
                    prompt=prompt,
                    token_ids=captions.token_ids[rows],
                    mask=captions.mask[rows],
                    sampler_logprobs=captions.logprobs[rows],
                    texts=captions.texts[rows],
                    truncated=captions.truncated[rows],
                    adapter_version=adapter_version,
                )

    def caption_greedily(
        self, captioner: Captioner, questions: Sequence[EncodedQuestion], adapter_version: int
    ) -> list[str]:
        texts: list[str] = []
        for start in range(0, len(questions), self.questions_per_batch):
            prompts = [prompt for _, prompt in questions[start : start + self.questions_per_batch]]
            texts += captioner.generate(prompts, 1, self.max_new_tokens, temperature=None).texts
        return texts
