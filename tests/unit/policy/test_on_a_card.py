"""What needs a card: its attention kernels, its 4-bit kernels, its allocator. ``pytest --device cuda -m gpu``."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from racro_pl.policy.bounded_attention import _is_fused, bounded_attention
from racro_pl.policy.memory.formulas import Work
from racro_pl.policy.memory.ledger import memory_ledger
from racro_pl.types import Prompt
from tests.helpers.device import device
from tests.helpers.tolerance import LOGPROBS, NF4, assert_equal, difference, rounding
from tests.unit.policy.conftest import FAMILIES, QUESTIONS, build
from tests.unit.policy.test_ledger import settings_of
from tests.unit.policy.test_shared_prefix import GROUP, captions

pytestmark = pytest.mark.gpu
HEADS, KV_HEADS, SIZE, TOKENS = 16, 2, 128, 1200


def states(dtype: torch.dtype, tokens: int = TOKENS) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, heads, tokens, SIZE, generator=draw).to(device(), dtype).requires_grad_()
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]


def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    k, v = (x.double().repeat_interleave(HEADS // KV_HEADS, dim=1) for x in (k, v))
    scores = (q.double() @ k.transpose(-1, -2)) * SIZE**-0.5
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v


def test_bfloat16_takes_flash_attention():
    q, k, v = states(torch.bfloat16)
    assert _is_fused(q, k, v, SIZE**-0.5, None)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        out = bounded_attention(q, k, v, SIZE**-0.5)
    out.float().sum().backward()
    assert q.grad.isfinite().all()
    assert_equal(out, exact(q, k, v), rounding(torch.bfloat16, (1, 1)))


def test_float32_takes_the_efficient_kernel_and_holds_no_scores():
    q, k, v = states(torch.float32, 4096)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = bounded_attention(q, k, v, SIZE**-0.5)
    out.sum().backward()
    assert torch.cuda.max_memory_allocated() - before < HEADS * 4096**2 * 4 / 2
    with torch.no_grad():
        assert_equal(bounded_attention(*states(torch.float32), SIZE**-0.5), exact(*states(torch.float32)),
                     2 * rounding(torch.float32, (SIZE, TOKENS)))  # fmt: skip


@pytest.mark.parametrize("in_features", [64, 96, 2048])
@pytest.mark.parametrize("rows", [1, 4, 300])
def test_the_4_bit_kernels_multiply_by_the_weights_that_are_stored(in_features, rows):
    """One row takes another kernel than many."""
    import bitsandbytes as bnb

    layer = bnb.nn.Linear4bit(in_features, 256, compute_dtype=torch.bfloat16, quant_type="nf4").to(device())
    inputs = torch.randn(rows, in_features, device=device(), dtype=torch.bfloat16, requires_grad=True)
    out = layer(inputs)
    weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).double()
    expected = inputs.double() @ weight.T + layer.bias.double()
    assert_equal(out, expected, rounding(torch.bfloat16, (1, 1, 1)))
    gradient = torch.randn_like(out)
    out.backward(gradient)
    assert_equal(inputs.grad, gradient.double() @ weight, rounding(torch.bfloat16, (1, 1, 1)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [{}, {"dtype": "bfloat16"}, {"quantization": "nf4", "dtype": "bfloat16"}], ids=str)
def test_the_sampler_is_the_policy(folders, family, kind, record_property):
    """The gap per token between the log-probs at the draw and the trainer's: rounding, recorded."""
    captioner = build(folders[family], **kind)
    captioner.eos_ids = frozenset({-1})
    prompts = [captioner.encode(item) for item in QUESTIONS]
    torch.manual_seed(0)
    found = captioner.generate(prompts, group_size=8, max_new_tokens=24, temperature=1.0)
    group = torch.arange(4).repeat_interleave(8)
    scored = captioner.frozen_logprobs(prompts, group, found.token_ids, found.mask, reference=False)
    gap = (scored - found.logprobs).abs()
    record_property("mean_gap_per_token", f"{float(gap.mean()):.3g}")
    record_property("largest_gap", f"{float(gap.max()):.3g}")
    assert gap.mean() < (0.03 if kind else LOGPROBS * 10)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_card_computes_what_the_cpu_computes(folders, family, monkeypatch, record_property):
    tokens, mask = captions()
    there = build(folders[family])
    on_card, _ = there.logprobs([there.encode(item) for item in QUESTIONS], GROUP, tokens, mask)
    monkeypatch.setattr("tests.helpers.device._chosen", torch.device("cpu"))
    here = build(folders[family])
    here.load_state_dict({name: tensor.cpu() for name, tensor in there.state_dict().items()})
    tokens, mask = tokens.cpu(), mask.cpu()
    on_cpu, _ = here.logprobs([here.encode(item) for item in QUESTIONS], GROUP, tokens, mask)
    record_property("relative_difference", f"{difference(on_card, on_cpu):.3g}")
    assert_equal(on_card, on_cpu, 2 * LOGPROBS)


@pytest.mark.parametrize("kind", [{"dtype": "bfloat16"}, {"dtype": "bfloat16", "quantization": "nf4"}], ids=str)
def test_the_ledger_against_the_allocator(folders, kind, record_property):
    """Tensors of a step, without the weights: what the ledger says beside ``max_memory_allocated``."""
    settings = settings_of(folders["qwen2_5_vl"], kind | {"gradient_checkpointing": False})
    captioner = build(folders["qwen2_5_vl"], **kind, gradient_checkpointing=False)
    length, tokens, group = 1200, 300, 8
    work = Work(length, 0, tokens, group, groups=1, questions=1, sampled_together=1)
    found = memory_ledger(captioner.model.get_base_model().config, settings, work)
    prompt = Prompt(torch.full((length,), 20), torch.zeros(length, dtype=torch.long))
    rows = torch.full((group, tokens), 21)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    logprobs, _ = captioner.logprobs(
        [prompt], torch.zeros(group, dtype=torch.long), rows, torch.ones_like(rows, dtype=torch.bool)
    )
    logprobs.sum().backward()
    measured = torch.cuda.max_memory_allocated() - before
    expected = found.peak - sum(found.bytes_of(name) for name in ("weights", "adapters", "optimizer: two moments"))
    record_property("ledger_over_measured", f"{expected / measured:.3f}")
    assert 0.7 < expected / measured < 1.6


def test_nf4_logprobs_are_those_of_the_plain_way_under_autocast(folders):
    """bf16-mixed around 4-bit layers, as Lightning's precision would set it."""
    captioner = build(folders["qwen2_5_vl"], quantization="nf4")
    prompts = [captioner.encode(item) for item in QUESTIONS]
    tokens, mask = captions()
    plain, _ = captioner.logprobs(prompts, GROUP, tokens, mask)
    with torch.autocast("cuda", torch.bfloat16):
        mixed, _ = captioner.logprobs(prompts, GROUP, tokens, mask)
    assert_equal(mixed[mask], plain[mask], 2 * NF4)
