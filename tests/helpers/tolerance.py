"""How far two right ways to compute one number may differ: from dtype and length of sums, for every test.

**The rule.** A sum of n products in a dtype with rounding unit u = eps / 2 is off by about ``sqrt(n) * u``, relative to
what is summed: rounding errors have either sign and add up like a random walk. (The worst case, ``n * u``, does not
occur: N. J. Higham, T. Mary, "A New Approach to Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41, 2019.)
Two right ways sum in two orders, each off by that much, so they differ by up to ``sqrt(n) * eps``. Which orders they
are is the processor's choice: AVX2, AVX-512 and AMX kernels cut a matrix product into other blocks, and cut it
differently for other numbers of rows. Errors of sums that feed each other add up: :func:`rounding` takes all lengths.

**What it is relative to.** The largest value of what is summed, not each single result: a value near 0 is the
difference of large ones and carries their error. The largest value of the tensor stands for it; where results are far
smaller than what they are made of (an entropy of logits), the caller passes those. :func:`difference` is that measure.

**What it is not.** A bound for what hardware happens to give. Where a test fails on a new processor, the chain of sums
below is wrong, or the code is. A wrong mask, position or divisor moves the same numbers by 1e-2 and more.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

LAYERS = 2
"""Of the small models in tests/fakes/models.py, in language model and vision tower alike."""
HIDDEN, INNER, HEAD = 64, 128, 16
PATCH = 3 * 2 * 16**2
"""Values of one patch: colours, frames, pixels. The larger of the two families."""
VOCABULARY = 320
TOKENS = 128
"""More than any prompt of the tests has with its caption: keys of one attention, tokens of one gradient."""

_LAYER = (HIDDEN, HEAD, TOKENS, HIDDEN, HIDDEN, INNER, HIDDEN, HIDDEN)
"""Projections to q, k, v; scores; values; output; gate and up; down; two norms."""
_TOWER = (PATCH, *_LAYER * LAYERS, 4 * HIDDEN, 4 * HIDDEN)
"""Patches, layers, and the merger that makes one token of four patches."""
FORWARD = (*_TOWER, *_LAYER * LAYERS, HIDDEN, VOCABULARY)
"""Sums between an image and a log-prob: tower, layers, head, softmax."""
BACKWARD = (*FORWARD, *FORWARD, TOKENS)
"""And between it and a gradient: there, back, and the sum over tokens."""
ROUNDED_LAYERS = 7 * LAYERS
"""Linear layers in a row whose outputs are rounded to a dtype, their sums being in float32."""


def rounding(dtype: torch.dtype, lengths: Sequence[int]) -> float:
    """Up to how much two orders of the same chain of sums differ, relative to the largest value.

    Args:
        dtype: of the running sums.
        lengths: of the sums, one after the other.
    """
    return torch.finfo(dtype).eps * sum(sqrt(length) for length in lengths)


LOGPROBS = rounding(torch.float32, FORWARD)
"""Float32 log-probs (and entropies, losses) of the small models: 4.2e-5."""
NATS = 10 * LOGPROBS
"""Float32 log-probs of single tokens, absolute: the logits that they are made of reach about 10."""
GRADIENTS = rounding(torch.float32, BACKWARD)
"""Their float32 gradients: 8.5e-5."""
SOFTMAX = rounding(torch.float32, (VOCABULARY,))
"""Float32 log-softmax of the same logits: 2.1e-6."""
NF4 = rounding(torch.bfloat16, (ROUNDED_LAYERS,))
"""Log-probs of 4-bit models: their layers hand on bfloat16, and a kernel for few rows rounds elsewhere: 2.9e-2."""


def difference(found: Tensor, expected: Tensor, summed: Tensor | None = None) -> float:
    """The largest difference, relative to the largest value that is summed (default: the largest expected one)."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    largest = (expected if summed is None else summed.detach().cpu().double()).abs().max()
    return float((found - expected).abs().max() / largest.clamp(min=1e-12))


def assert_equal(
    found: Tensor, expected: Tensor, limit: float, name: str = "result", summed: Tensor | None = None
) -> None:
    """Equal but for rounding.

    Args:
        found: what the code computed.
        expected: the same in another right way.
        limit: one of the figures above.
        name: of the tensor, for the message.
        summed: as in :func:`difference`.
    """
    assert found.shape == expected.shape, name
    apart = difference(found, expected, summed)
    assert apart <= limit, (
        f"{name} differs by {apart:.3g}, relative to its largest value; rounding explains {limit:.3g}"
    )
