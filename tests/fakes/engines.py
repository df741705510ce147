"""A rollout engine that samples nothing: its captions are the same whatever the processor's rounding."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import torch

from racro_pl.policy.captioner import Captioner
from racro_pl.rollout.engine import EncodedQuestion, RolloutEngine
from racro_pl.types import Rollout


class FixedEngine(RolloutEngine):
    """Ragged captions that follow from the question's id alone."""

    placement = "same_device"  # type: ignore[assignment]

    def sample(
        self, captioner: Captioner, questions: Sequence[EncodedQuestion], adapter_version: int
    ) -> Iterator[Rollout]:
        for question, prompt in questions:
            generator = torch.Generator().manual_seed(zlib.crc32(question.id.encode()))
            lengths = torch.randint(1, 7, (self.group_size,), generator=generator)
            mask = torch.arange(6)[None] < lengths[:, None]
            allowed = (~captioner.banned).nonzero()[:, 0].cpu()
            token_ids = allowed[torch.randint(0, len(allowed), mask.shape, generator=generator)]
            texts = tuple(captioner.encoder.tokenizer.batch_decode(token_ids))
            if question.id == "3":  # a group without signal
                token_ids, mask, texts = token_ids[:1].repeat(4, 1), mask[:1].repeat(4, 1), (texts[0],) * 4
            yield Rollout(question, prompt, token_ids, mask, None, texts, (True,) * 4, adapter_version)

    def caption_greedily(self, captioner: Captioner, questions: Sequence[EncodedQuestion]) -> list[str]:
        raise NotImplementedError("this fit does not validate")
