"""Uncertainty of scores: bootstrap intervals of one system, and paired comparisons of two. Pure numpy.

Left out: corrections for many comparisons (a table of systems makes several; read its p-values with that in mind)
and the noise of the sampled answers themselves: an interval is about the choice of questions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

_BLOCK = 1_000_000
"""Most counts drawn at once: 8 MB."""


@dataclass(frozen=True)
class PairedTest:
    """Two systems on the same groups: only those count on which they differ."""

    lost: int
    """Groups on which the second scores less than the first."""
    gained: int
    """Groups on which it scores more."""
    p_value: float
    """Two-sided: how often two equally good systems would differ at least so much."""


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
    return _percentiles(scores, (0.0, 1.0), resamples, level, seed)


def paired_interval(scores_a: Mapping[str, float], scores_b: Mapping[str, float]) -> PairedDifference | None:
    """Cluster bootstrap interval (95 %) of ``b - a``: the groups that both have are resampled whole.

    A question that is hard for both moves both headlines alike, so the difference is known better than the two
    separate intervals suggest. Scores are by the group's name. Where all groups differ alike (two systems that are
    right on the same ones, say), the bound of :func:`bootstrap_interval` stands in here too.

    Returns:
        None when no group is common. With one group the interval says nothing: ``(-1, 1)``.
    """
    common = [name for name in scores_a if name in scores_b]
    if not common:
        return None
    differences = np.array([scores_b[name] - scores_a[name] for name in common])
    low, high = _percentiles(differences, (-1.0, 1.0)) if len(common) > 1 else (-1.0, 1.0)
    return PairedDifference(float(differences.mean()), low, high, len(common))


def paired_test(scores_a: Mapping[str, float], scores_b: Mapping[str, float]) -> PairedTest:
    """Exact test of the difference ``b - a`` over the groups that both have: Fisher's randomisation test for pairs.

    Of equally good systems, each group's difference may as well have the other sign. All ``2 ** n`` choices of signs
    count alike; the p-value is the share of them whose sum is at least as far from 0 as the one found. Where groups are
    right or wrong only, this is McNemar's exact test. Sums are over integers, so nothing is rounded.

    Args:
        scores_a: score of each group of the first system, by the group's name; a multiple of 1/1000 at the finest.
        scores_b: likewise of the second.

    >>> paired_test({"x": 1, "y": 0, "z": 0, "w": 0}, dict.fromkeys("xyzw", 1))
    PairedTest(lost=0, gained=3, p_value=0.25)
    >>> paired_test({"x": 0, "y": 0.5}, {"x": 1, "y": 0.0}).p_value  # +1 and -1/2: of the four sums, all as far from 0
    1.0
    """
    exact = [
        Fraction(scores_b[name]).limit_denominator(1000) - Fraction(scores_a[name]).limit_denominator(1000)
        for name in scores_a
        if name in scores_b
    ]
    differences = [difference for difference in exact if difference]
    scale = math.lcm(*(difference.denominator for difference in differences))
    sizes = Counter(int(abs(difference) * scale) for difference in differences)
    # How many choices of signs give each sum: one binomial per size of difference, folded together.
    ways = {0: 1}
    for size, count in sizes.items():
        folded: Counter[int] = Counter()
        for total, number in ways.items():
            term = 1  # count choose positive
            for positive in range(count + 1):
                folded[total + size * (2 * positive - count)] += number * term
                term = term * (count - positive) // (positive + 1)
        ways = dict(folded)
    found = abs(int(sum(differences) * scale))
    as_far = sum(number for total, number in ways.items() if abs(total) >= found)
    return PairedTest(
        lost=sum(difference < 0 for difference in differences),
        gained=sum(difference > 0 for difference in differences),
        p_value=float(Fraction(as_far, 2 ** len(differences))),
    )


def _percentiles(
    values: np.ndarray, span: tuple[float, float], resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentiles of the means of ``values`` resampled; ``span`` has the least and the largest value that can be.

    Drawing n values with replacement is drawing how often each *distinct* value comes up: multinomial counts. Scores
    have few distinct values, so 10,000 resamples of 3,000 groups cost a few thousand numbers instead of 30 million.
    """
    distinct, counts = np.unique(values, return_counts=True)
    if distinct.size == 1:
        # Clopper-Pearson at the ends: (alpha / 2) ** (1 / n) is the share of such groups at which n in a row are such
        # in alpha / 2 of all cases. The others may be anything within the span.
        value, others = float(distinct[0]), 1 - ((1 - level) / 2) ** (1 / values.size)
        return value - others * (value - span[0]), value + others * (span[1] - value)
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
