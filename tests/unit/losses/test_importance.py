"""Importance weights against hand-worked numbers, and what they do to the loss."""

import math
from dataclasses import replace

import pytest
import torch

from racro_pl.losses import VARIANTS, grpo_loss, truncated_importance
from racro_pl.losses.importance import effective_sample_share


def logs(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).log()


OLD = logs([0.6, 0.2, 0.5], [0.4, 0.9, 0.1])
SAMPLER = logs([0.2, 0.4, 0.5], [0.4, 0.3, 0.1])
# token ratios: 3, 1/2, 1 and 1, 3, 1; the last token of the second caption is padding
MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_token_weights_are_ratios_cut_at_the_cap():
    found = truncated_importance(OLD, SAMPLER, MASK, cap=2.0)
    torch.testing.assert_close(found.weights, torch.tensor([[2.0, 0.5, 1.0], [1.0, 2.0, 1.0]]))
    # 3 + .5 + 1 + 1 + 3 = 8.5; weights 2 + .5 + 1 + 1 + 2 = 6.5, squares 4 + .25 + 1 + 1 + 4 = 10.25
    # gaps: ln 3 twice and ln 2: 2.8904
    expected = {"count": 5, "ratio": 8.5, "capped": 2, "weight": 6.5, "weight_squared": 10.25, "tokens": 5,
                "gap": 2.8904}  # fmt: skip
    assert found.sums == pytest.approx(expected, abs=1e-4)
    assert found.max_ratio == pytest.approx(3.0)


def test_sequence_weights_are_products_over_the_caption():
    found = truncated_importance(OLD, SAMPLER, MASK, level="sequence", cap=2.0)
    # 3 * .5 * 1 = 1.5, and 1 * 3 = 3, cut to 2
    torch.testing.assert_close(found.weights, torch.tensor([[1.5, 1.5, 1.5], [2.0, 2.0, 1.0]]))
    expected = {"count": 2, "ratio": 4.5, "capped": 1, "weight": 3.5, "weight_squared": 6.25, "tokens": 5}
    assert {name: found.sums[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_same_engine_weighs_nothing(level):
    found = truncated_importance(OLD, OLD, MASK, level=level)
    assert torch.equal(found.weights, torch.ones(2, 3))
    assert found.sums["gap"] == found.sums["capped"] == 0
    assert effective_sample_share(found.sums["weight"], found.sums["weight_squared"], found.sums["count"]) == 1


def test_weights_make_the_samplers_mean_the_policys():
    """Unbiased before truncation: sum over tokens of mu * (pi / mu) * f = sum of pi * f."""
    policy, sampler = logs([0.1, 0.2, 0.7]), logs([0.3, 0.3, 0.4])
    value = torch.tensor([[5.0, -1.0, 2.0]])
    weights = truncated_importance(policy, sampler, torch.ones(1, 3, dtype=torch.bool), cap=1e9).weights
    torch.testing.assert_close((sampler.exp() * weights * value).sum(), (policy.exp() * value).sum())


def test_padding_and_overflow_stay_finite():
    old = torch.tensor([[0.0, float("nan")], [-500.0, 0.0]])
    sampler = torch.tensor([[-1000.0, float("-inf")], [0.0, 0.0]])
    mask = torch.tensor([[True, False], [True, True]])
    for level in ("token", "sequence"):
        found = truncated_importance(old, sampler, mask, level=level)
        assert torch.isfinite(found.weights).all()
        assert all(math.isfinite(number) for number in (*found.sums.values(), found.max_ratio))
        assert found.weights[0, 0] == 2
        assert found.weights[1, 0] < 1e-8


def test_nothing_that_counts():
    found = truncated_importance(OLD, SAMPLER, torch.zeros(2, 3, dtype=torch.bool))
    assert torch.equal(found.weights, torch.ones(2, 3))
    assert found.max_ratio == 0
    assert effective_sample_share(0.0, 0.0, 0.0) == 1


def test_effective_samples():
    # weights 2, 1, 1: 16 / (3 * 6)
    assert effective_sample_share(4.0, 6.0, 3.0) == pytest.approx(16 / 18)


def test_the_loss_weighs_the_policy_term_and_not_the_divergence():
    policy = OLD.clone().requires_grad_()
    reference = OLD + 0.3
    advantages = torch.tensor([1.0, -2.0])
    weights = truncated_importance(OLD, SAMPLER, MASK).weights
    out = grpo_loss(policy, OLD, reference, advantages, MASK, weights, replace(VARIANTS["grpo"], kl_coefficient=0.5))
    # ratio 1: policy term -A w: -(2 + .5 + 1) + 2 (1 + 2) = 2.5; k3 at .3: e^.3 - 1.3 = .049859, five tokens
    assert float(out.loss.detach()) == pytest.approx(2.5 + 0.5 * 5 * 0.049859, abs=1e-5)
    out.loss.backward()
    # d/dlogp: -A w + coefficient * (1 - e^.3)
    expected = -advantages[:, None] * weights + 0.5 * (1 - torch.tensor(0.3).exp())
    torch.testing.assert_close(policy.grad, torch.where(MASK, expected, torch.zeros(())))
