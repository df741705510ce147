"""Uncertainty of scores: bootstrap intervals of one system, and paired comparisons of two. Pure numpy.

Left out: corrections for many comparisons (a table of systems makes several; read its p-values with that in mind)
and the noise of the sampled answers themselves: an interval is about the choice of questions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_BLOCK = 1_000_000
"""Most counts drawn at once: 8 MB."""


@dataclass(frozen=True)
class McNemar:
    """Two systems on the same questions: only those count on which they differ."""

    only_first: int
    """Questions that the first has right and the second wrong."""
    only_second: int
    p_value: float
    """Two-sided: how often two equally good systems would differ at least so unevenly."""


@dataclass(frozen=True)
class PairedDifference:
    """Second headline minus first, over the groups that both have."""

    difference: float
    low: float
    high: float
    groups: int


def bootstrap_interval(
    group_scores: Sequence[float], resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over groups (Efron and Tibshirani 1993, section 13.3).

    Groups are resampled, not questions: the variants of one question stand or fall together. Where every group is
    right (or every group wrong) resampling would show no spread at all and claim certainty; the exact binomial bound
    of Clopper and Pearson stands in. Fewer than two groups say nothing: ``(0, 1)``.

    Args:
        group_scores: score of each group, in 0...1.
        resamples: how many samples are drawn.
        level: share of the samples' means inside the interval.
        seed: the same scores and seed give the same interval.

    >>> low, high = bootstrap_interval([1.0] * 10)
    >>> round(low, 4), high
    (0.6915, 1.0)
    """
    scores = np.asarray(group_scores, dtype=np.float64)
    if scores.size < 2:
        return 0.0, 1.0
    # Clopper-Pearson at the ends: (alpha / 2) ** (1 / n) is the chance of a right group at which n in a row are
    # right in alpha / 2 of all cases.
    bound = ((1 - level) / 2) ** (1 / scores.size)
    if np.all(scores == 1):
        return bound, 1.0
    if np.all(scores == 0):
        return 0.0, 1 - bound
    return _percentiles(scores, resamples, level, seed)


def paired_interval(
    scores_a: Mapping[str, float],
    scores_b: Mapping[str, float],
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference | None:
    """Bootstrap interval of ``b - a``, resampling the groups that both have.

    A question that is hard for both moves both headlines alike, so the difference is known better than the two
    separate intervals suggest.

    Args:
        scores_a: score of each group of the first system, by the group's name.
        scores_b: likewise of the second.

    Returns:
        None when no group is common. With one group the interval says nothing: ``(-1, 1)``.
    """
    common = [name for name in scores_a if name in scores_b]
    if not common:
        return None
    differences = np.array([scores_b[name] - scores_a[name] for name in common])
    low, high = _percentiles(differences, resamples, level, seed) if len(common) > 1 else (-1.0, 1.0)
    return PairedDifference(float(differences.mean()), low, high, len(common))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """McNemar's test, in its exact form at every size: a two-sided binomial test of the questions that differ.

    No chi-squared approximation is needed: the sum is over Python's integers, and 5,000 differing questions take
    milliseconds.

    Args:
        first: whether the first system is right, question by question.
        second: likewise of the second, in the same order.

    Raises:
        ValueError: the two differ in length.

    >>> mcnemar([True, False, False, False], [True, True, True, True])
    McNemar(only_first=0, only_second=3, p_value=0.25)
    """
    pairs = list(zip(first, second, strict=True))
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    differing = only_first + only_second
    tail, term = 0, 1  # term = differing choose k
    for k in range(min(only_first, only_second) + 1):
        tail += term
        term = term * (differing - k) // (k + 1)
    # Both tails; at an even split they overlap in the middle.
    return McNemar(only_first, only_second, min(1.0, 2 * tail / 2**differing))


def _percentiles(values: np.ndarray, resamples: int, level: float, seed: int) -> tuple[float, float]:
    """Percentiles of the means of ``values`` resampled.

    Drawing n values with replacement is drawing how often each *distinct* value comes up: multinomial counts. Scores
    have few distinct values, so 10,000 resamples of 3,000 groups cost a few thousand numbers instead of 30 million.
    """
    distinct, counts = np.unique(values, return_counts=True)
    if distinct.size == 1:
        return float(distinct[0]), float(distinct[0])
    rng = np.random.default_rng(seed)
    shares = counts / values.size
    block = max(1, _BLOCK // distinct.size)
    means = np.empty(resamples)
    for start in range(0, resamples, block):
        drawn = rng.multinomial(values.size, shares, size=min(block, resamples - start))
        means[start : start + block] = drawn @ distinct / values.size
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def mean(scores: Sequence[float]) -> float:
    """Exactly rounded mean, so that the order of the questions cannot change a headline's last digit."""
    return math.fsum(scores) / len(scores)
