"""Attention over a part of the keys: equal to the explicit sums, float32 scores in any dtype, parts that join."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from racro_pl.policy.decode_attention import GrowingAttention
from racro_pl.policy.partial_attention import attend, attend_explicitly, has_kernel, hiding_bias, join

SHAPES = [  # rows, heads, queries, keys, head size
    (3, 2, 4, 1, 16), (3, 2, 4, 37, 16), (2, 2, 24, 67, 128), (1, 1, 1, 1, 8), (2, 3, 5, 600, 64), (2, 1, 33, 130, 80),
]  # fmt: skip
WAYS = [attend, attend_explicitly]
EPSILON = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8}


def inputs(shape, dtype, scale=1.0):
    rows, heads, queries, keys, size = shape
    generator = torch.Generator().manual_seed(keys)
    q = (scale * torch.randn(rows, heads, queries, size, generator=generator)).to(dtype)
    # As in the sampler: a window of a larger room.
    k, v = (torch.randn(rows, heads, keys + 7, size, generator=generator).to(dtype)[:, :, :keys] for _ in range(2))
    hidden = torch.arange(keys) >= torch.tensor([[max(1, keys * (row + 1) // rows - 3)] for row in range(rows)])
    return q, k, v, hidden


def exact(q, k, v, scaling, hidden):
    scores = (q.double() @ k.double().transpose(-1, -2)) * scaling
    if hidden is not None:
        scores = scores.masked_fill(hidden[:, None, None], float("-inf"))
    return scores.softmax(-1) @ v.double(), scores.logsumexp(-1, keepdim=True)


def bounds(shape, dtype, scaling):
    """Absolute errors of outputs and of log-sum-exps: scores are sums of ``size`` products of order 1 in float32;
    weights, relatively, are as far off as scores; values are below 5; weights and outputs are rounded to the dtype.
    For bfloat16 kernels may take exponentials to 12 bits, of the sum as of the weights."""
    of_scores = scaling * shape[-1] * EPSILON[torch.float32]
    of_sums = 10 * EPSILON[torch.float32] if dtype == torch.float32 else 2.0**-12
    return 5 * (of_scores + 2 * EPSILON[dtype]), of_scores + of_sums


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_log_sum_exp_are_those_of_the_explicit_sums(way, dtype, padded, shape):
    q, k, v, hidden = inputs(shape, dtype)
    bias = hiding_bias(hidden, dtype) if padded else None
    out, lse = way(q, k, v, 0.3, bias)
    expected, expected_lse = exact(q, k, v, 0.3, hidden if padded else None)
    assert out.dtype == dtype
    assert lse.dtype == torch.float32
    of_output, of_lse = bounds(shape, dtype, 0.3)
    torch.testing.assert_close(out.double(), expected, atol=of_output, rtol=0)
    torch.testing.assert_close(lse.double(), expected_lse, atol=of_lse, rtol=EPSILON[torch.float32])


@pytest.mark.parametrize("way", WAYS)
def test_large_scores_are_not_rounded_to_the_dtype_of_the_keys(way):
    """In bfloat16 scores of some hundreds would be off by up to 1, and weights by a factor of e."""
    q, k, v, _ = inputs((2, 2, 3, 90, 64), torch.bfloat16, scale=60.0)
    out, lse = way(q, k, v, 1.0)
    expected, expected_lse = exact(q, k, v, 1.0, None)
    assert expected_lse.abs().max() > 500
    torch.testing.assert_close(lse.double(), expected_lse, atol=1e-2, rtol=1e-6)
    torch.testing.assert_close(out.double(), expected, atol=0.03, rtol=0.01)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", EPSILON)
def test_two_parts_joined_are_the_whole(way, dtype):
    q, k, v, hidden = inputs((2, 2, 5, 120, 32), dtype)
    bias = hiding_bias(hidden[:, :80], dtype)
    joined = join(way(q, k[:, :, :80], v[:, :, :80], 0.5, bias), way(q, k[:, :, 80:], v[:, :, 80:], 0.5))
    hidden = torch.cat([hidden[:, :80], torch.zeros_like(hidden[:, 80:])], dim=1)
    expected, _ = exact(q, k, v, 0.5, hidden)
    of_output, _ = bounds(q.shape, dtype, 0.5)
    torch.testing.assert_close(joined.double(), expected, atol=of_output, rtol=0)


@pytest.mark.parametrize("queries", [1, 31, 32, 40])
def test_cuda_is_given_what_its_kernel_takes(queries):
    """Without a GPU: shapes and dtypes of what comes back, and a bias whose rows are aligned."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        q, k = (torch.empty(3, 2, n, 64, dtype=torch.bfloat16, device="cuda") for n in (queries, 37))
        bias = hiding_bias(torch.zeros(3, 37, dtype=torch.bool, device="cuda"), torch.bfloat16)
        assert bias.shape == (3, 1, 1, 37)
        assert bias.stride(0) % 16 == 0
        out, lse = attend(q, k, k, 0.3, bias)
    assert (out.shape, out.dtype) == (q.shape, torch.bfloat16)
    assert (lse.shape, lse.dtype) == ((3, 2, queries, 1), torch.float32)


def test_no_kernel_takes_bfloat16_before_ampere(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None)
    for capability, dtype, has in (
        ((7, 5), torch.bfloat16, False), ((7, 5), torch.float16, True), ((8, 0), torch.bfloat16, True),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda capability=capability: capability)
        assert has_kernel.__wrapped__(dtype) == has


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_on_a_gpu_as_score_by_score(dtype, padded, shape):
    q, k, v, hidden = (tensor.cuda() for tensor in inputs(shape, dtype))
    bias = hiding_bias(hidden, dtype) if padded else None
    found, expected = attend(q, k, v, 0.3, bias), exact(q, k, v, 0.3, hidden if padded else None)
    for mine, other, bound in zip(found, expected, bounds(shape, dtype, 0.3), strict=True):
        torch.testing.assert_close(mine.double(), other, atol=bound, rtol=EPSILON[torch.float32])


class Operations(TorchDispatchMode):
    """Counts operations that compute or copy: each is a kernel to launch on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not function.is_view and function is not torch.ops.aten._unsafe_view.default:
            self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_a_token_attends_in_few_operations():
    """docs/performance.md counts them: on GPUs sampling waits for their launches."""
    states = {0: (torch.randn(2, 2, 9, 16), torch.randn(2, 2, 9, 16))}
    real = torch.arange(9) < torch.tensor([[9], [5]])
    attention = GrowingAttention(states, real, group_size=3)
    q, k, v = (torch.randn(1, 6, heads, 16).transpose(1, 2) for heads in (4, 2, 2))
    attention(0, q, k, v, 0.25)
    attention.advance()
    with Operations() as counted:
        attention(0, q, k, v, 0.25)
    # Write key and value, two attentions, arrange queries, outputs and log-sum-exps by group, join.
    assert len(counted.names) <= 10, "\n".join(counted.names)
