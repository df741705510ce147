"""Sampling in which every row of a batch draws from a seed of its own.

transformers' own sampling draws for all rows from one stream: what a row gets then depends on what else is in its
batch, and on every batch before.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper


class DrawByRow(LogitsProcessor):
    """Leaves each row one token: the one in whose share of the probabilities the row's next number falls.

    Each row has a seed; at most ``tokens`` tokens will be drawn.
    """

    def __init__(self, seeds: Sequence[int], tokens: int) -> None:
        # Drawn on the CPU: the same on every device.
        rows = [
            torch.rand(tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in seeds
        ]
        self._numbers = torch.stack(rows)
        self._drawn = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (rows, vocabulary) in; 0 for the token that was drawn and minus infinity for all others out."""
        # float64: over a large vocabulary the rounding of a float32 sum would outweigh rare tokens.
        edges = scores.double().softmax(dim=-1).cumsum(dim=-1)
        self._numbers = self._numbers.to(edges.device)  # once: a copy for each token would wait for the device
        number = self._numbers[:, self._drawn, None] * edges[:, -1:]
        self._drawn += 1
        token = torch.searchsorted(edges, number, right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, float("-inf")).scatter(1, token, 0.0)


def sampler(seeds: Sequence[int], temperature: float, top_p: float, tokens: int) -> LogitsProcessorList:
    """For ``generate(logits_processor=..., do_sample=False)``: sampling at a temperature, from the top share.

    Args:
        seeds, tokens: as in :class:`DrawByRow`.
        temperature: above 0.
        top_p: share of the probability to sample from, the likeliest tokens first; 1 for all.
    """
    steps: list[LogitsProcessor] = [TemperatureLogitsWarper(temperature)]
    if top_p < 1:
        steps.append(TopPLogitsWarper(top_p))
    return LogitsProcessorList([*steps, DrawByRow(seeds, tokens)])
