"""The probe tells faults of the shared-prefix path from rounding, and leaves no trace."""

from __future__ import annotations

import math

import pytest
import torch
from transformers.models.gemma3.modeling_gemma3 import Gemma3Attention

from racro_pl.policy.attention import GroupAttention
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.packing_probe import check_plain, probe_packing
from racro_pl.policy.plain_path import PlainPath
from racro_pl.policy.recurrent import LayerState
from racro_pl.types import RacroError
from tests.helpers.families import save_small_family
from tests.unit.policy.conftest import QUESTIONS, build

DTYPES = {"float32": {}, "bfloat16": {"dtype": "bfloat16"}, "nf4": {"dtype": "bfloat16", "quantization": "nf4"}}


def state(captioner: Captioner) -> dict[str, object]:
    """All that a probe must leave as it is."""
    return {
        "random": torch.random.get_rng_state().tolist(),
        "training": [module.training for module in captioner.modules()],
        "trained": [name for name, parameter in captioner.named_parameters() if parameter.requires_grad],
        "gradients": [name for name, parameter in captioner.named_parameters() if parameter.grad is not None],
        "weights": [float(parameter.detach().double().sum()) for parameter in captioner.parameters()],
        "adapters": list(captioner.model.active_adapters),
        "attention": captioner.parts()[0].config.text_config._attn_implementation,
        "path": captioner.path,
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_right_paths_pass_and_nothing_is_left_behind(small, dtype):
    captioner = build(small("gemma4"), image_cache_mib=1, **DTYPES[dtype])
    before = state(captioner)
    packing = probe_packing(captioner, reference=True)
    assert packing.fault is None
    assert packing.difference < packing.limit / 2
    assert probe_packing(captioner, reference=True) == packing  # bit for bit: a resumed run finds the same
    assert state(captioner) == before
    assert not any(captioner.drain_metrics().values())


@pytest.mark.parametrize("dtype", DTYPES)
def test_missing_two_way_blocks_are_found(small, dtype):
    captioner = build(small("gemma4"), **DTYPES[dtype])
    prompts = [captioner.encode(QUESTIONS[row]) for row in (0, 3)]
    captioner.path.two_way = None
    packing = probe_packing(captioner, prompts)
    assert packing.difference > 2 * packing.limit
    assert packing.fault is not None
    assert "differ from the model's own by" in packing.fault
    assert "description of 'gemma4' does not know" in packing.fault


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["qwen3_vl", "gemma3", "lfm2_vl", "qwen3_5"])
def test_deep_models_whose_rounding_is_large_pass(tmp_path, kind, dtype):
    """In bfloat16 linear attention turns one rounding unit into 0.3 nats over 32 layers: no fault of packing."""
    first = {"gemma3": "sliding_attention", "lfm2_vl": "conv", "qwen3_5": "linear_attention"}
    layers = {"layer_types": [first[kind], "full_attention"] * 16} if kind in first else {}
    folder = save_small_family(tmp_path, kind, num_hidden_layers=32, **layers)
    packing = probe_packing(build(folder, **DTYPES[dtype]))
    assert packing.fault is None
    assert packing.difference < 0.6 * packing.limit


def test_a_state_that_is_not_carried_over_is_found(small, monkeypatch):
    captioner = build(small("lfm2_vl"))
    monkeypatch.setattr(LayerState, "select", lambda self, rows: LayerState())
    packing = probe_packing(captioner)
    assert packing.difference > 100 * packing.limit


def test_numbers_that_are_none_are_a_fault(small, monkeypatch):
    captioner = build(small("llava"))
    stock = GroupAttention.__call__
    monkeypatch.setattr(GroupAttention, "__call__", lambda *inputs: stock(*inputs) * float("nan"))
    packing = probe_packing(captioner)
    assert math.isnan(packing.difference)
    assert packing.fault is not None


def test_an_argument_that_may_change_scores_is_named_as_the_fault(small, monkeypatch):
    """What the model passes to its attention function may be new; its own implementation takes it."""
    captioner = build(small("gemma3"))
    stock = Gemma3Attention.forward
    monkeypatch.setattr(
        Gemma3Attention, "forward", lambda self, *inputs, **options: stock(self, *inputs, **options, softcap=30.0)
    )
    fault = probe_packing(captioner).fault
    assert fault is not None
    assert "the shared-prefix path fails: Gemma3Attention attends with softcap, which" in fault


def test_what_fails_on_both_paths_is_an_error(small, monkeypatch):
    captioner = build(small("llava"))

    def broken(*inputs: object, **options: object) -> None:
        raise ValueError("out of order")

    monkeypatch.setattr(captioner.parts()[0].model, "forward", broken)
    with pytest.raises(ValueError, match="out of order"):
        probe_packing(captioner)


def test_the_plain_path_is_held_to_what_the_model_writes(small, monkeypatch):
    captioner = build(small("vipllava"))
    before = state(captioner)
    assert check_plain(captioner) < 1e-5
    assert state(captioner) == before
    stock = PlainPath.score

    def shifted(*inputs, **options):
        logprobs, entropies = stock(*inputs, **options)
        return logprobs + 0.1, entropies

    monkeypatch.setattr(PlainPath, "score", shifted)
    with pytest.raises(RacroError, match=r"vipllava: log-probs of captions differ by 0\.1 nats .* not what the model"):
        check_plain(captioner)
