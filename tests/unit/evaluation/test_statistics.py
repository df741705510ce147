"""Intervals and tests against values worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from racro_pl.evaluation.statistics import PairedTest, bootstrap_interval, mean, paired_interval, paired_test


def test_the_interval_has_the_width_of_a_binomial_proportion():
    # 120 of 200 right: 0.6 -+ 1.96 * sqrt(0.6 * 0.4 / 200) = 0.6 -+ 0.0679
    low, high = bootstrap_interval([1.0] * 120 + [0.0] * 80)
    assert low == pytest.approx(0.5321, abs=0.006)
    assert high == pytest.approx(0.6679, abs=0.006)


def test_the_interval_is_over_groups_of_any_score():
    # Scores 0, 0.5, 1 in equal parts: variance (0.25 + 0 + 0.25) / 3 = 1/6; 1.96 * sqrt(1/6 / 300) = 0.0462
    low, high = bootstrap_interval([0.0, 0.5, 1.0] * 100)
    assert (low, high) == (pytest.approx(0.4538, abs=0.005), pytest.approx(0.5462, abs=0.005))


def test_a_wider_level_contains_a_narrower_one_and_a_seed_repeats():
    scores = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0] * 5
    narrow, wide = bootstrap_interval(scores, level=0.8), bootstrap_interval(scores, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert bootstrap_interval(scores, seed=3) == bootstrap_interval(scores, seed=3)
    assert bootstrap_interval(scores) == bootstrap_interval(list(reversed(scores)))


@pytest.mark.parametrize("scores", [[], [1.0], [0.0], [0.5]])
def test_fewer_than_two_groups_say_nothing(scores):
    assert bootstrap_interval(scores) == (0.0, 1.0)


def test_all_right_is_not_certainty():
    # Clopper-Pearson: 0.025 ** (1 / 20) = 0.8316
    assert bootstrap_interval([1.0] * 20) == (pytest.approx(0.8316, abs=1e-4), 1.0)
    assert bootstrap_interval([0.0] * 20) == (0.0, pytest.approx(0.1684, abs=1e-4))


def test_groups_that_all_differ_alike_are_no_certainty_either():
    # 1 - 0.025 ** (1 / 20) = 0.1684 of the groups may be otherwise: the difference -1 or 1 where it was 0, ...
    half, right, wrong = (dict.fromkeys(map(str, range(20)), score) for score in (0.5, 1.0, 0.0))
    same, gained = paired_interval(right, right), paired_interval(wrong, right)
    assert same.difference == 0.0
    assert (same.low, same.high) == (pytest.approx(-0.1684, abs=1e-4), pytest.approx(0.1684, abs=1e-4))
    # ... or -1 where it was 1.
    assert (gained.difference, gained.low, gained.high) == (1.0, pytest.approx(1 - 2 * 0.1684, abs=1e-4), 1.0)
    assert bootstrap_interval(list(half.values())) == (pytest.approx(0.4158, abs=1e-4), pytest.approx(0.5842, abs=1e-4))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        low, high = bootstrap_interval((rng.random(100) < 0.3).astype(float), resamples=1000, seed=trial)
        covered += low <= 0.3 <= high
    # 95 % of 400 = 380; the percentile method covers a little less at n = 100, and chance adds -+ 9.
    assert 362 <= covered <= 396


def test_many_distinct_scores_fit_into_bounded_memory():
    # 5,000 distinct values and 1,000 resamples: drawn in blocks of 200.
    scores = np.linspace(0, 1, 5000)
    low, high = bootstrap_interval(scores, resamples=1000)
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(1 / 12 / 5000), rel=0.15)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        (0, 0, 1.0),
        (0, 1, 1.0),
        (0, 5, 2 / 32),  # both tails of 5 coin throws that all agree
        (1, 5, 2 * (1 + 6) / 64),  # 6 throws: none or one head = 1 + 6 of 64
        (6, 2, 2 * (1 + 8 + 28) / 256),
        (3, 3, 1.0),  # the tails overlap in the middle: never above 1
    ],
)
def test_of_right_and_wrong_it_is_mcnemars_exact_binomial_test(only_first, only_second, p_value):
    first = scores([1.0] * only_first + [0.0] * only_second + [1.0, 0.0])
    second = scores([0.0] * only_first + [1.0] * only_second + [1.0, 0.0])
    assert paired_test(first, second) == PairedTest(only_first, only_second, pytest.approx(p_value, abs=1e-12))


def scores(values):
    return {str(place): value for place, value in enumerate(values)}


def test_the_paired_test_stays_exact_for_thousands():
    # z = 200 / sqrt(5000) = 2.83, with continuity (199): 2.814, two-sided normal tail 0.00489
    first = [1.0] * 2400 + [0.0] * 2600
    found = paired_test(scores(first), scores([1.0 - score for score in first]))
    assert found.p_value == pytest.approx(0.00489, abs=5e-5)
    assert paired_test(scores([0.0] * 3000), scores([1.0] * 3000)).p_value == pytest.approx(0.0, abs=1e-300)


@pytest.mark.parametrize("seed", range(5))
def test_of_other_scores_it_counts_every_choice_of_signs(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.choice([0.0, 0.5, 1.0], 9), rng.choice([0.0, 0.5, 1.0, 1 / 3], 9)
    signs = np.array(list(itertools.product((-1, 1), repeat=9)))
    sums = np.abs(signs @ (second - first))
    expected = float(np.mean(sums > abs((second - first).sum()) - 1e-9))
    assert paired_test(scores(first), scores(second)).p_value == pytest.approx(expected)


def test_the_paired_test_is_over_common_groups():
    assert paired_test({"x": 1.0, "y": 0.0}, {"y": 1.0, "z": 0.0}) == PairedTest(0, 1, 1.0)
    assert paired_test({"x": 1.0}, {"x": 1.0}) == PairedTest(0, 0, 1.0)


def test_a_paired_difference_is_over_common_groups():
    # common: x (1 - 0), y (1 - 1), z (0 - 0) = mean 1/3; w and v have no partner
    found = paired_interval({"w": 1.0, "x": 0.0, "y": 1.0, "z": 0.0}, {"x": 1.0, "y": 1.0, "z": 0.0, "v": 1.0})
    assert (found.difference, found.groups) == (pytest.approx(1 / 3), 3)
    assert found.low == 0.0
    assert found.high == 1.0


def test_pairing_knows_more_than_two_separate_intervals():
    # Equal on 90 hard or easy groups, 10 gained: sd of the differences is 0.3, not sqrt(2) * 0.5.
    first = {str(i): float(i % 2) for i in range(100)}
    second = {name: 1.0 if int(name) < 20 else score for name, score in first.items()}
    found = paired_interval(first, second)
    assert found.difference == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1 - 1.96 * 0.03, abs=0.011)
    assert found.low > 0


def test_no_common_group_and_a_single_one():
    assert paired_interval({"a": 1.0}, {"b": 1.0}) is None
    found = paired_interval({"a": 1.0}, {"a": 0.0})
    assert (found.difference, found.low, found.high) == (-1.0, -1.0, 1.0)


def test_the_mean_does_not_depend_on_the_order():
    scores = [0.1, 0.2, 0.3]  # in floats, 0.1 + 0.2 + 0.3 is more than 0.3 + 0.2 + 0.1
    assert mean(scores) == mean(scores[::-1])
