"""Adapters on the stacked experts of mixture models: exact, saved, merged, refused where they do not work."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from racro_pl.policy import paths
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.policy.exporting import export_merged
from racro_pl.policy.fsdp import shard
from racro_pl.policy.loading import load_captioner, load_for_inference
from racro_pl.policy.memory.formulas import Work
from racro_pl.policy.memory.ledger import memory_ledger, on_meta
from racro_pl.policy.packing_probe import probe_packing
from racro_pl.policy.sampling import sample_captions
from racro_pl.policy.structure import expert_names
from racro_pl.rollout import RolloutError
from racro_pl.rollout.vllm.server import required_arguments
from racro_pl.types import RacroError
from tests.helpers.device import device
from tests.helpers.tolerance import LOGPROBS, assert_equal
from tests.unit.policy.conftest import QUESTIONS, build
from tests.unit.policy.families.stock import stock_greedy
from tests.unit.policy.families.test_matrix import captions, check_packed

MOE = ["qwen3_vl_moe", "qwen3_5_moe"]
LORA = LoraSettings(rank=4, alpha=8, experts=True)


def with_experts(folder: Path, **changes: object) -> Captioner:
    return build(folder, lora=LORA, **changes)


def score(captioner: Captioner) -> torch.Tensor:
    tokens, mask = captions()
    inputs = ([captioner.encode(QUESTIONS[0])], torch.zeros(len(tokens), dtype=torch.long), tokens, mask)
    return captioner.frozen_logprobs(*inputs, reference=False)


def adapted(captioner: Captioner) -> dict[str, torch.Tensor]:
    return {name: p for name, p in captioner.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", MOE)
def test_packed_equals_repeated_with_experts(small, kind):
    captioner = with_experts(small(kind))
    experts = [name for name in adapted(captioner) if ".experts." in name]
    assert len(experts) == 2 * 2 * 2  # layers, stacks, matrices
    check_packed(captioner)


@pytest.mark.parametrize("kind", ["qwen3_vl_moe", pytest.param("qwen3_5_moe", marks=pytest.mark.slow)])
def test_greedy_captions_with_experts_are_those_of_generate(small, kind, monkeypatch):
    captioner = with_experts(small(kind))
    expected = [stock_greedy(captioner, question, 8) for question in QUESTIONS]
    for static in (False, True) if kind == "qwen3_vl_moe" else (False,):
        monkeypatch.setattr(paths, "sample_captions", partial(sample_captions, static=static))
        found = captioner.generate([captioner.encode(question) for question in QUESTIONS], 1, 8, None)
        assert [row[real].tolist() for row, real in zip(found.token_ids, found.mask, strict=True)] == expected


@pytest.mark.parametrize("kind", MOE)
def test_experts_are_left_alone_by_default(small, kind):
    assert not [name for name in adapted(build(small(kind))) if ".experts." in name]


def test_only_mixtures_have_experts(small):
    """A short convolution has weights of three dimensions too."""
    kinds = [*MOE, "qwen3_5", "lfm2_vl", "gemma4", "llava"]
    found = {kind: expert_names(on_meta(AutoConfig.from_pretrained(small(kind)))) for kind in kinds}
    assert {kind for kind, names in found.items() if names} == set(MOE)
    with pytest.raises(RacroError, match="lora.experts is true, and Qwen3_5ForConditionalGeneration has no stacked"):
        with_experts(small("qwen3_5"))


@pytest.mark.parametrize("kind", MOE)
def test_a_saved_adapter_on_experts_is_loaded_started_from_and_merged(small, kind, tmp_path):
    captioner = with_experts(small(kind))
    captioner.save(tmp_path / "adapter")
    expected = score(captioner)
    settings = PolicySettings(
        path=str(small(kind)), adapter=str(tmp_path / "adapter"), dtype="float32", min_pixels=56 * 56,
        max_pixels=128 * 128, lora=LORA,
    )  # fmt: skip
    assert torch.equal(score(load_for_inference(settings, device())), expected)
    again = load_captioner(settings, device())
    assert torch.equal(score(again), expected)
    assert adapted(again).keys() == adapted(captioner).keys()
    (tmp_path / "merged").mkdir()
    export_merged(settings, tmp_path / "merged", "float32")
    merged = load_for_inference(replace(settings, path=str(tmp_path / "merged"), adapter=None), device())
    assert_equal(score(merged), expected, LOGPROBS)
    with pytest.raises(RacroError, match=r"has adapters on experts, and policy\.lora\.experts is false.*experts: true"):
        load_captioner(replace(settings, lora=LoraSettings(rank=4, alpha=8)), device())


def test_an_adapter_without_experts_does_not_start_a_stage_with_them(small, tmp_path):
    build(small("qwen3_vl_moe")).save(tmp_path / "adapter")
    settings = PolicySettings(path=str(small("qwen3_vl_moe")), adapter=str(tmp_path / "adapter"), lora=LORA)
    with pytest.raises(RacroError, match=r"has no adapters on experts, .* is true"):
        load_captioner(settings, device())


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["mlp.gate.weight"], r"target_parameters names model\.language_model.*mlp\.gate\.weight; expected stacked"),
        (["mlp.experts.other"], "names no experts of the model"),
        ("mlp.experts.down_proj", "target_parameters is 'mlp.experts.down_proj'; expected names of parameters"),
        (["experts.down_proj"], "in the files but not in the model"),
    ],
)
def test_parameters_that_an_adapter_must_not_name(small, tmp_path, named, message):
    with_experts(small("qwen3_vl_moe")).save(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"target_parameters": named}))
    settings = PolicySettings(path=str(small("qwen3_vl_moe")), adapter=str(tmp_path), dtype="float32")
    with pytest.raises(RacroError, match=message):
        load_for_inference(settings, device())


def test_nf4_leaves_experts_as_they_are_and_packs(small):
    captioner = with_experts(small("qwen3_vl_moe"), quantization="nf4", dtype="bfloat16")
    experts = [p for name, p in captioner.named_parameters() if name.endswith(("gate_up_proj", "experts.down_proj"))]
    assert {p.dtype for p in experts} == {torch.bfloat16}
    assert {p.dtype for p in adapted(captioner).values()} == {torch.float32}
    assert probe_packing(captioner, reference=True).fault is None


@pytest.mark.parametrize("kind", MOE)
def test_the_ledger_counts_adapters_on_experts(small, kind):
    settings = PolicySettings(path="", lora=LORA, dtype="float32")
    work = Work(400, 300, 20, 4, groups=1, questions=2, sampled_together=2)
    ledger = memory_ledger(AutoConfig.from_pretrained(small(kind)), settings, work)
    assert ledger.bytes_of("adapters") == sum(4 * p.numel() for p in adapted(with_experts(small(kind))).values())
    assert ledger.bytes_of("a layer's experts, adapted") == 4 * 4 * (96 * 64 + 64 * 48)


def test_what_does_not_take_adapters_on_experts_says_so(small):
    with pytest.raises(RolloutError, match=r"lora\.experts is true: whether vLLM .* was not tried"):
        required_arguments(PolicySettings(path="", lora=LORA))
    with pytest.raises(RacroError, match=r"lora\.experts needs whole weights on every rank; use the ddp strategy"):
        shard(with_experts(small("qwen3_vl_moe")), device(), None, None)
