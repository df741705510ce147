"""Without a fused kernel too, attention holds no scores of all queries against all keys."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from racro_pl.policy import bounded_attention as bounded
from racro_pl.policy.attention import GroupAttention, Rows
from racro_pl.policy.sampling import PromptAttention
from tests.fakes.memory import PeakMemory
from tests.helpers.device import device, there
from tests.helpers.tolerance import assert_equal, rounding

HEADS, KV_HEADS, SIZE, P, T = 4, 2, 8, 1024, 40
SCORES = HEADS * P * P * 4
"""Bytes of one prompt's scores in float32."""
LIMIT = rounding(torch.float32, (SIZE, P + T, P + T, SIZE))


@pytest.fixture
def unfused(monkeypatch):
    """Score by score, as a card without a kernel for the call: six of a prompt's queries at a time."""
    monkeypatch.setattr(bounded, "CHUNK_SCORES", 2 * HEADS * P * P // 64)
    with sdpa_kernel(SDPBackend.MATH):
        yield


def rows_of_two() -> GroupAttention:
    """Two prompts, one of them shorter, and three captions."""
    prompts = Rows((torch.arange(P) < torch.tensor([P, P - 30])[:, None]).to(device()))
    captions = Rows((torch.arange(T) < torch.tensor([T, 7, T - 1])[:, None]).to(device()))
    return GroupAttention(prompts, captions, torch.tensor([0, 1, 0], device=device()))


def states(tokens: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    drawn = (torch.randn(1, heads, tokens, SIZE, generator=draw) for heads in (HEADS, KV_HEADS, KV_HEADS))
    return [tensor.requires_grad_() for tensor in there(*drawn)]


def attend_and_return(attention, inputs) -> list[torch.Tensor]:
    out = attention(0, *inputs, SIZE**-0.5)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.device)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), inputs)]


def test_in_parts_it_computes_the_same(unfused, monkeypatch):
    inputs = states(2 * P - 30 + 2 * T + 6)
    found = attend_and_return(rows_of_two(), inputs)
    monkeypatch.setattr(bounded, "CHUNK_SCORES", 2**60)
    expected = attend_and_return(rows_of_two(), inputs)
    for mine, other in zip(found, expected, strict=True):
        assert_equal(mine, other, LIMIT)


def peak(attention, inputs) -> int:
    with PeakMemory(inputs) as memory:
        attend_and_return(attention, inputs)
    return memory.peak


def test_forward_and_backward_never_hold_all_scores(unfused, monkeypatch):
    attention, inputs = rows_of_two(), states(2 * P - 30 + 2 * T + 6)
    assert peak(attention, inputs) < SCORES
    monkeypatch.setattr(bounded, "CHUNK_SCORES", 2**60)
    assert peak(attention, inputs) > 3 * SCORES  # two prompts: their scores and weights, and the way back


def test_reading_prompts_to_sample_never_holds_all_scores(unfused):
    attention = PromptAttention(rows_of_two().prompts)
    inputs = states(2 * P - 30)
    with torch.no_grad(), PeakMemory(inputs) as memory:
        attention(0, *inputs, SIZE**-0.5)
    assert memory.peak < SCORES


def test_a_fused_kernel_is_left_to_its_work(monkeypatch):
    """However many scores there are, it holds none of them."""
    monkeypatch.setattr(bounded, "CHUNK_SCORES", 1)
    q, k, v = (x[0][None] for x in states(64))
    calls = []
    real = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        bounded.F, "scaled_dot_product_attention", lambda *args, **named: calls.append(1) or real(*args, **named)
    )
    bounded.bounded_attention(q, k, v, 0.25)
    assert len(calls) == 1


def test_under_autocast_a_kernel_is_looked_for_in_the_dtype_that_it_gets(monkeypatch):
    """Weights that are trained themselves are float32: rotated queries and keys are too, and values are bfloat16."""
    monkeypatch.setattr(bounded, "CHUNK_SCORES", 1)
    seen = []
    monkeypatch.setattr(bounded, "_is_fused", lambda q, k, v, _, mask: seen.append((q, k, v, mask)) or True)
    query, key, value = states(2 * P - 30 + 2 * T + 6)
    with torch.autocast(device().type, torch.bfloat16, cache_enabled=False):
        out = attend_and_return(rows_of_two(), [query, key, value.detach().bfloat16().requires_grad_()])
    assert [gradient.dtype for gradient in out[1:]] == [torch.float32, torch.float32, torch.bfloat16]
    assert len(seen) == 2  # prompts, captions
    assert {tensor.dtype for call in seen for tensor in call if tensor is not None} == {torch.bfloat16}
