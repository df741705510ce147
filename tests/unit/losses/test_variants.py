"""Each loss variant and KL estimator against plain loops in float64, by hand, and by enumeration."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from racro_pl.losses import VARIANTS, divisor, grpo_loss, kl_estimate
from racro_pl.losses.kl import K3_LIMIT

ALL = tuple(VARIANTS)
ONE_TOKEN = torch.ones(1, 1, dtype=torch.bool)


# ---------------------------------------------------------------------- plain references


def clip(advantage: float, ratio: float, low: float, high: float, dual: float) -> tuple[float, float]:
    """max(-A r, -A clamp(r)), bounded for negative advantages; and its derivative by log r."""
    inside = 1 - low <= ratio <= 1 + high
    plain, clipped = -advantage * ratio, -advantage * min(max(ratio, 1 - low), 1 + high)
    value, slope = (plain, plain) if plain >= clipped else (clipped, plain if inside else 0.0)
    if advantage < 0 and value > -advantage * dual:
        return -advantage * dual, 0.0
    return value, slope


def kl(policy: float, ref: float, name: str) -> tuple[float, float]:
    """The estimate of one token and its derivative by the policy's log-prob."""
    d = ref - policy
    if name == "k1":
        return -d, 1.0
    if name == "k2":
        return d * d / 2, -d
    value = math.exp(d) - d - 1
    return (value, 1 - math.exp(d)) if value <= K3_LIMIT else (K3_LIMIT, 0.0)


def plain_step(name: str, variant, policy, old, ref, advantages, mask, longest: int):
    """The whole step's loss and gradient, divided, each variant written out as in its paper."""
    rows, columns = policy.shape
    loss, gradient = 0.0, np.zeros_like(policy)
    tokens, captions = int(mask.sum()), int(mask.any(axis=1).sum())
    bounds = (variant.clip_low, variant.clip_high, variant.dual_clip)
    beta = variant.kl_coefficient
    for i in range(rows):
        counted = [t for t in range(columns) if mask[i, t]]
        if not counted:
            continue
        if name == "gspo":
            sequence_ratio = math.exp(sum(policy[i, t] - old[i, t] for t in counted) / len(counted))
            value, slope = clip(advantages[i], sequence_ratio, *bounds)
            loss += value / captions
            for t in counted:
                term, by_policy = kl(policy[i, t], ref[i, t], variant.kl)
                loss += beta * term / len(counted) / captions
                gradient[i, t] = (slope + beta * by_policy) / len(counted) / captions
            continue
        share = {"grpo": tokens, "dapo": tokens, "dr_grpo": captions * longest}[name]
        for t in counted:
            value, slope = clip(advantages[i], math.exp(policy[i, t] - old[i, t]), *bounds)
            term, by_policy = kl(policy[i, t], ref[i, t], variant.kl)
            loss += (value + beta * term) / share
            gradient[i, t] = (slope + beta * by_policy) / share
    return loss, gradient


@settings(max_examples=80)
@given(
    seed=st.integers(0, 10_000), name=st.sampled_from(ALL), estimator=st.sampled_from(["k1", "k2", "k3"]),
    spread=st.sampled_from([1e-4, 0.1, 0.6]), beta=st.sampled_from([0.0, 0.5]),
)  # fmt: skip
def test_every_loss_with_every_estimator_equals_its_plain_loop(seed, name, estimator, spread, beta):
    rng = np.random.default_rng(seed)
    old = -rng.random((4, 5)) * 3
    policy, ref = old + rng.normal(size=(4, 5)) * spread, old + rng.normal(size=(4, 5)) * spread
    advantages, mask = rng.normal(size=4), rng.random((4, 5)) < 0.6
    mask[0] = False  # a caption without a score
    mask[1, 0] = True
    variant = replace(VARIANTS[name], kl=estimator, kl_coefficient=beta)
    expected, expected_gradient = plain_step(name, variant, policy, old, ref, advantages, mask, longest=9)
    tensor = torch.tensor(policy, requires_grad=True)
    arguments = [torch.tensor(each) for each in (old, ref, advantages, mask)]
    loss = grpo_loss(tensor, *arguments, variant=variant).loss / divisor(variant, arguments[-1], longest=9)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(tensor.grad.numpy(), expected_gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_a_step_cut_into_captions_is_the_same_step(name):
    """Summed losses over summed divisors: what makes micro-batches and ranks change nothing."""
    draw = torch.Generator().manual_seed(0)
    policy, old, ref = (-torch.rand(6, 7, generator=draw, dtype=torch.float64) for _ in range(3))
    advantages = torch.randn(6, generator=draw, dtype=torch.float64)
    mask = torch.arange(7)[None] < torch.tensor([7, 1, 3, 0, 5, 2])[:, None]
    variant = replace(VARIANTS[name], kl_coefficient=0.1)

    def summed(rows: slice) -> tuple[float, float]:
        out = grpo_loss(policy[rows], old[rows], ref[rows], advantages[rows], mask[rows], variant=variant)
        return float(out.loss), divisor(variant, mask[rows], longest=7)

    whole, parts = summed(slice(None)), [summed(slice(row, row + 1)) for row in range(6)]
    assert whole == pytest.approx(tuple(sum(column) for column in zip(*parts, strict=True)))


# ---------------------------------------------------------------------- by hand

# Two captions of 1 and 3 tokens, ratio 1 everywhere, advantages 1 and -1; the gradient by each log-prob is -A / D:
GRADIENTS = {
    "grpo": ((-1 / 4, 0, 0), (1 / 4, 1 / 4, 1 / 4)),  # D = 4 tokens: the longer caption weighs more
    "dapo": ((-1 / 4, 0, 0), (1 / 4, 1 / 4, 1 / 4)),
    "dr_grpo": ((-1 / 20, 0, 0), (1 / 20, 1 / 20, 1 / 20)),  # D = 2 captions * 10 tokens, whatever was written
    "gspo": ((-1 / 2, 0, 0), (1 / 6, 1 / 6, 1 / 6)),  # D = 2 captions, each caption's tokens share its weight
}


@pytest.mark.parametrize("name", ALL)
def test_what_a_token_weighs(name):
    policy = torch.zeros(2, 3, requires_grad=True)
    mask = torch.tensor([[True, False, False], [True, True, True]])
    variant = replace(VARIANTS[name], kl_coefficient=0.0)
    out = grpo_loss(policy, None, None, torch.tensor([1.0, -1.0]), mask, variant=variant)
    (out.loss / divisor(variant, mask, longest=10)).backward()
    torch.testing.assert_close(policy.grad, torch.tensor(GRADIENTS[name]))


@pytest.mark.parametrize(
    ("name", "ratio", "advantage", "expected"),
    [
        ("grpo", 1.25, 1.0, -1.2),  # clipped at 1 + .2
        ("dapo", 1.25, 1.0, -1.25),  # clip-higher: free up to 1 + .28
        ("dapo", 1.30, 1.0, -1.28),
        ("dapo", 0.75, -1.0, 0.8),
        ("grpo", 5.0, -1.0, 3.0),  # dual clip
        ("dapo", 5.0, -1.0, 5.0),  # none in the paper
        ("dr_grpo", 1.25, 1.0, -1.2),
        ("gspo", 1.25, 1.0, -1.0004),  # clipped at 1 + 4e-4
        ("gspo", 0.75, -1.0, 0.9997),
    ],
)
def test_clip_ranges(name, ratio, advantage, expected):
    policy = torch.tensor([[math.log(ratio)]])
    variant = replace(VARIANTS[name], kl_coefficient=0.0)
    out = grpo_loss(policy, torch.zeros(1, 1), None, torch.tensor([advantage]), ONE_TOKEN, variant=variant)
    assert out.loss.item() == pytest.approx(expected, abs=1e-6)


def test_the_ratio_of_a_sequence_is_a_geometric_mean():
    # log-ratios .3 and -.1: mean .1, s = e^.1 = 1.105171; clipped to 1 + 1 it stays; A = 2: L = -2.210342
    policy, mask = torch.tensor([[0.3, -0.1, 9.0]]), torch.tensor([[True, True, False]])
    variant = replace(VARIANTS["gspo"], clip_high=1.0, kl_coefficient=0.0)
    out = grpo_loss(policy, torch.zeros(1, 3), None, torch.tensor([2.0]), mask, variant=variant)
    assert out.loss.item() == pytest.approx(-2.210342, abs=1e-5)
    # weights 1 and .5 of the sampler's mismatch: their mean, .75
    weighted = grpo_loss(
        policy, torch.zeros(1, 3), None, torch.tensor([2.0]), mask, torch.tensor([[1.0, 0.5, 7.0]]), variant
    )
    assert weighted.loss.item() == pytest.approx(-2.210342 * 0.75, abs=1e-5)


def test_garbage_under_the_mask_changes_no_sequence():
    policy = torch.tensor([[-1.0, float("inf")]], requires_grad=True)
    other = torch.tensor([[-1.1, float("nan")]])
    mask = torch.tensor([[True, False]])
    out = grpo_loss(policy, other, other, torch.tensor([1.0]), mask, variant=VARIANTS["gspo"])
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert torch.isfinite(policy.grad[0, 0])
    assert policy.grad[0, 1] == 0


# ---------------------------------------------------------------------- KL


def test_estimators_by_hand():
    # d = -.5: k1 = .5; k2 = .125; k3 = e^-.5 + .5 - 1 = .106531
    values = [kl_estimate(torch.tensor([[0.0]]), torch.tensor([[-0.5]]), name).item() for name in ("k1", "k2", "k3")]
    assert values == pytest.approx([0.5, 0.125, 0.106531], abs=1e-6)


def test_what_the_estimators_and_their_gradients_mean_by_enumeration():
    """All tokens of one distribution, weighted by their probabilities: values and gradients in expectation."""
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(6, generator=draw, dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.randn(6, generator=draw, dtype=torch.float64), 0)

    def gradient(value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, logits)[0]

    def expected(name: str) -> torch.Tensor:
        policy = torch.log_softmax(logits, 0)
        return (policy.detach().exp() * kl_estimate(policy[None], reference[None], name)[0]).sum()

    def divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (first.exp() * (first - second)).sum()

    backward_kl = divergence(torch.log_softmax(logits, 0), reference)
    forward_kl = divergence(reference, torch.log_softmax(logits, 0))
    k2_gradient = gradient(backward_kl)
    for name in ("k1", "k3"):
        assert expected(name).item() == pytest.approx(backward_kl.item())
    assert expected("k2").item() != pytest.approx(backward_kl.item(), rel=0.01)
    torch.testing.assert_close(gradient(expected("k1")), torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(gradient(expected("k2")), k2_gradient)
    torch.testing.assert_close(gradient(expected("k3")), gradient(forward_kl))
