"""Every formula against hand-worked numbers and an independent float64 computation."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from racro_pl.losses import (
    VARIANTS,
    group_advantages,
    grpo_loss,
    head_logprobs,
    kl_estimate,
    same_rewards,
    token_logprobs,
)
from tests.helpers.tolerance import SOFTMAX, assert_equal, rounding

GRPO = VARIANTS["grpo"]
NO_KL = replace(GRPO, kl_coefficient=0.0)


def all_scored(rewards: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(rewards, dtype=torch.bool)


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        # mean 1/4; squares .5625 + 3 * .0625 = .75; std = sqrt(.75 / 3) = .5; (1 - .25) / .5 = 1.5
        ((1, 0, 0, 0), (1.5, -0.5, -0.5, -0.5)),
        # mean 1/2; std = sqrt(4 * .25 / 3) = .57735; .5 / .57735 = .8660
        ((1, 1, 0, 0), (0.8660, 0.8660, -0.8660, -0.8660)),
        ((1, 1, 1, 0), (0.5, 0.5, 0.5, -1.5)),
        ((1, 1, 1, 1), (0.0, 0.0, 0.0, 0.0)),
        ((0, 0, 0, 0), (0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_advantages_of_the_reference(rewards, expected):
    rewards = torch.tensor([rewards], dtype=torch.float32)
    torch.testing.assert_close(
        group_advantages(rewards, all_scored(rewards)), torch.tensor([expected]), atol=1e-4, rtol=0
    )


def test_an_unscored_caption_leaves_the_statistics_of_its_group():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 123.0]])
    scored = torch.tensor([[True, True, True, False]])
    # of (1, 0, 0): mean 1/3, std = sqrt((4/9 + 1/9 + 1/9) / 2) = .57735; (2/3) / .57735 = 1.1547
    torch.testing.assert_close(
        group_advantages(rewards, scored), torch.tensor([[1.1547, -0.57735, -0.57735, 0.0]]), atol=1e-4, rtol=0
    )


def test_nan_in_an_unscored_caption_reaches_nobody():
    rewards = torch.tensor([[1.0, 0.0, float("nan")]])
    advantages = group_advantages(rewards, torch.tensor([[True, True, False]]))
    assert torch.isfinite(advantages).all()
    assert advantages[0, 2] == 0


# Shares of votes; one less a penalty (vpo); the mean of two reasoners with three votes; a gain.
FRACTIONS = (1 / 3, 2 / 3, 1 / 5, 3 / 5, 4 / 5, 1 / 7, 1 - 0.1, 2 / 3 * 0.9, (1 + 2 / 3) / 2, 2 / 3 * (1 - 1 / 3))


@pytest.mark.parametrize("divide_by_std", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 8, 10, 12, 16])
def test_equal_rewards_teach_nothing_whatever_the_fraction(size, dtype, divide_by_std):
    rewards = torch.tensor([[fraction] * size for fraction in FRACTIONS], dtype=dtype)
    unscored = torch.arange(size) == size - 1
    for scored in (all_scored(rewards), ~unscored.expand_as(rewards)):
        given = torch.where(scored, rewards, torch.full_like(rewards, 17.0))
        assert torch.equal(group_advantages(given, scored, divide_by_std), torch.zeros_like(rewards))


@pytest.mark.parametrize("divide_by_std", [True, False])
def test_rewards_that_only_rounding_tells_apart_are_equal(divide_by_std):
    """The mean over three reasoners of 1/5, 2/5 and 3/5, added up in every order."""
    rewards = [(first + second + third) / 3 for first, second, third in itertools.permutations((0.2, 0.4, 0.6))]
    assert len(set(rewards)) > 1
    assert same_rewards(rewards)
    given = torch.tensor([rewards], dtype=torch.float64)
    assert torch.equal(group_advantages(given, all_scored(given), divide_by_std), torch.zeros_like(given))


def test_the_smallest_difference_that_rewards_can_have_counts():
    """One vote of 64 more, halved by a second reasoner, and nearly all of it taken by a gain."""
    rewards = [0.5, 0.5 + 1 / 64 / 2 * (1 - 63 / 64)]
    assert not same_rewards(rewards)
    given = torch.tensor([rewards])
    assert group_advantages(given, all_scored(given))[0].tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5], rel=0.03)


def test_no_reward_and_one_reward_are_no_comparison():
    assert same_rewards([])
    assert same_rewards([0.5])


@pytest.mark.parametrize("divide_by_std", [True, False])
@pytest.mark.parametrize("scored", [(False, False, False), (True, False, False)])
def test_a_group_without_two_scores_teaches_nothing(scored, divide_by_std):
    rewards = torch.tensor([[1.0, 0.0, 0.0]])
    assert torch.equal(group_advantages(rewards, torch.tensor([scored]), divide_by_std), torch.zeros(1, 3))


def test_advantages_without_std_are_distances_from_the_mean():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 99.0]])
    scored = torch.tensor([[True, True, True, False]])
    # mean of (1, 0, 0) is 1/3
    expected = torch.tensor([[2 / 3, -1 / 3, -1 / 3, 0.0]])
    torch.testing.assert_close(group_advantages(rewards, scored, divide_by_std=False), expected)


def test_k3_is_the_formula_and_bounded():
    # d = 0.5: e^.5 - .5 - 1 = .148721
    assert kl_estimate(torch.tensor([[-1.0]]), torch.tensor([[-0.5]])).item() == pytest.approx(0.148721, abs=1e-6)
    assert kl_estimate(torch.tensor([[-200.0]]), torch.tensor([[0.0]])).item() == 10.0
    policy = torch.tensor([[-200.0]], requires_grad=True)
    kl_estimate(policy, torch.tensor([[0.0]])).sum().backward()
    assert torch.isfinite(policy.grad).all()


def test_clip_and_dual_clip_by_hand():
    ratio = torch.tensor([[1.5], [0.5], [1.5], [0.5], [4.0], [1.1]])
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0, 1.0])
    # A=1, r=1.5: max(-1.5, -1.2) = -1.2     A=1, r=.5: max(-.5, -.8) = -.5
    # A=-1, r=1.5: max(1.5, 1.2) = 1.5       A=-1, r=.5: max(.5, .8) = .8      A=-1, r=4: min(3, 4) = 3
    # A=1, r=1.1: within the range, so -1.1 and not clipped
    zeros = torch.zeros(6, 1)
    mask = torch.ones(6, 1, dtype=torch.bool)
    out = grpo_loss(ratio.log(), zeros, None, advantages, mask, variant=NO_KL)
    assert out.loss.item() == pytest.approx(-1.2 - 0.5 + 1.5 + 0.8 + 3.0 - 1.1, abs=1e-5)
    assert out.sums["clip_share"] == 2
    assert out.sums["dual_clip_share"] == 1
    # log old - log policy, summed: -ln(1.5 * .5 * 1.5 * .5 * 4 * 1.1) = -ln 2.475
    assert out.sums["approximate_kl"].item() == pytest.approx(-0.90624, abs=1e-5)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("loss", ["grpo", "gspo"])
def test_a_ratio_beyond_float32_keeps_loss_and_gradient_finite(loss, advantage):
    policy = torch.tensor([[0.0]], requires_grad=True)
    old, mask = torch.tensor([[-100.0]]), torch.tensor([[True]])  # e^100 is inf in float32
    variant = replace(VARIANTS[loss], kl_coefficient=0.0)
    out = grpo_loss(policy, old, None, torch.tensor([advantage]), mask, variant=variant)
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert torch.isfinite(policy.grad).all()


def reference_loss(policy, old, ref, advantages, mask, low, high, dual, beta):
    """The same objective in plain Python floats (float64), token by token; and its derivative by policy."""
    loss, gradient = 0.0, np.zeros_like(policy)
    for i, j in np.ndindex(policy.shape):
        if not mask[i, j]:
            continue
        a, r = advantages[i], math.exp(policy[i, j] - old[i, j])
        clipped = min(max(r, 1 - low), 1 + high)
        value, slope = -a * r, -a * r
        if -a * clipped > value:
            value, slope = -a * clipped, (-a * r if 1 - low <= r <= 1 + high else 0.0)
        if a < 0 and value > -a * dual:
            value, slope = -a * dual, 0.0
        d = ref[i, j] - policy[i, j]
        k3 = math.exp(d) - d - 1
        loss += value + beta * min(k3, 10.0)
        gradient[i, j] = slope + (beta * (1 - math.exp(d)) if k3 < 10 else 0.0)
    return loss, gradient


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), spread=st.sampled_from([0.1, 0.6, 3.0]), beta=st.sampled_from([0.0, 1e-3, 0.5]))
def test_loss_and_gradient_equal_the_independent_computation(seed, spread, beta):
    rng = np.random.default_rng(seed)
    old = -rng.random((4, 5)) * 3
    policy, ref = old + rng.normal(size=(4, 5)) * spread, old + rng.normal(size=(4, 5)) * spread
    advantages, mask = rng.normal(size=4), rng.random((4, 5)) < 0.7
    expected, expected_gradient = reference_loss(policy, old, ref, advantages, mask, 0.2, 0.3, 3.0, beta)
    tensor = torch.tensor(policy, requires_grad=True)
    out = grpo_loss(
        tensor, torch.tensor(old), torch.tensor(ref), torch.tensor(advantages), torch.tensor(mask),
        variant=replace(GRPO, clip_high=0.3, kl_coefficient=beta),
    )  # fmt: skip
    out.loss.backward()
    assert out.loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(tensor.grad.numpy(), expected_gradient, rtol=1e-9, atol=1e-9)


def test_garbage_under_the_mask_changes_nothing():
    policy = torch.tensor([[-1.0, float("inf")]], requires_grad=True)
    other = torch.tensor([[-1.1, float("nan")]])
    out = grpo_loss(policy, other, other, torch.tensor([1.0]), torch.tensor([[True, False]]))
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert torch.isfinite(policy.grad[0, 0])
    assert policy.grad[0, 1] == 0


def test_without_old_logprobs_the_gradient_is_that_of_ratio_one():
    policy = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    grpo_loss(policy, None, None, torch.tensor([2.0]), mask, variant=NO_KL).loss.backward()
    # d(-A r)/d logp = -A r = -2
    assert torch.equal(policy.grad, torch.full((1, 2), -2.0))


def test_a_missing_reference_is_an_error_not_a_missing_term():
    logprobs = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="no reference log-probs"):
        grpo_loss(logprobs, None, None, torch.ones(1), torch.ones(1, 1, dtype=torch.bool))


def test_logprobs_and_entropy_against_log_softmax_in_float64():
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ids = torch.tensor([[0, 1, 2], [3, 4, 5]])
    logprobs, entropy = token_logprobs(logits, ids, temperature=0.7)
    expected = torch.log_softmax(logits / 0.7, -1)
    assert_equal(logprobs, expected.gather(-1, ids[..., None])[..., 0], SOFTMAX, summed=logits / 0.7)
    assert_equal(entropy, -(expected.exp() * expected).sum(-1), SOFTMAX, summed=logits / 0.7)


def test_a_banned_token_has_no_mass():
    logits = torch.tensor([[[1.0, 2.0, 50.0]]], requires_grad=True)
    logprobs, entropy = token_logprobs(logits, torch.tensor([[1]]), banned=torch.tensor([False, False, True]))
    # among (1, 2): p = e / (1 + e) = .731059, log = -.313262; entropy = .582203
    assert logprobs.item() == pytest.approx(-0.313262, abs=1e-5)
    assert entropy.item() == pytest.approx(0.582203, abs=1e-5)
    logprobs.sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 0, 2] == 0


@pytest.mark.parametrize("chunk", [1, 3 * 50, 10**9])
def test_logprobs_through_the_head_in_chunks_equal_those_of_whole_logits(chunk):
    """Values and gradients of hidden states and head, at temperature 0.7 with banned tokens."""
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 8, generator=draw, requires_grad=True)
    weight = torch.randn(50, 8, generator=draw, requires_grad=True)
    tokens = torch.randint(10, 50, (11,), generator=draw)
    banned = torch.arange(50) < 5
    upstream = torch.randn(11, generator=draw)
    rows: list[int] = []

    def head(states: torch.Tensor) -> torch.Tensor:
        rows.append(len(states))
        return states @ weight.T

    whole, whole_entropy = token_logprobs(hidden @ weight.T, tokens, banned, 0.7)
    expected = torch.autograd.grad(whole, (hidden, weight), upstream)
    found, entropy = head_logprobs(head, hidden, tokens, banned, 0.7, chunk)
    gradients = torch.autograd.grad(found, (hidden, weight), upstream)
    # Sums over 8 hidden values and 50 logits; back over 50 logits, and over 11 tokens for the head.
    limit = rounding(torch.float32, (8, 50))
    logits = hidden @ weight.T / 0.7
    assert_equal(found, whole, limit, summed=logits)
    assert_equal(entropy, whole_entropy, limit, summed=logits)
    for one, other in zip(gradients, expected, strict=True):
        assert_equal(one, other, rounding(torch.float32, (8, 50, 50, 11)))
    assert max(rows) == min(11, max(1, chunk // 50))


def test_logits_never_whole_keeps_no_logits_for_the_backward_pass():
    """What autograd saves for 40 times the tokens is 40 times the hidden states, not a single row of logits."""
    weight = torch.randn(1000, 8)
    banned = torch.zeros(1000, dtype=torch.bool)

    def saved(tokens: int) -> int:
        sizes = []
        hidden = torch.randn(tokens, 8, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            head_logprobs(lambda x: x @ weight.T, hidden, torch.ones(tokens, dtype=torch.long), banned, 1.0, 10_000)
        return max(sizes, default=0)

    assert saved(400) < 10_000
