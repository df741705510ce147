"""Stages: a policy that starts from another's adapter, learns from there, and is measured against it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from racro_pl.losses import VARIANTS, grpo_loss
from racro_pl.policy.adapters import START, TRAINED, find_adapter
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.policy.loading import load_captioner
from racro_pl.types import RacroError
from tests.helpers.device import device, there
from tests.unit.policy.conftest import QUESTIONS, build

TOKENS, MASK = there(
    torch.randint(10, 200, (2, 5), generator=torch.Generator().manual_seed(2)),
    torch.tensor([[True] * 5, [True, True, False, False, False]]),
)


def scores(captioner: Captioner, reference: bool) -> torch.Tensor:
    prompts = [captioner.encode(question) for question in QUESTIONS[:2]]
    return captioner.frozen_logprobs(prompts, torch.arange(2), TOKENS, MASK, reference=reference)[MASK]


def weights(captioner: Captioner, name: str) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in captioner.named_parameters() if f".{name}." in n}


@pytest.fixture(params=["none", "nf4"])
def stages(request, folders, tmp_path) -> tuple[Captioner, Captioner, Path]:
    """Stage 1 as trained, and stage 2 as built from its folder."""
    first = build(folders["qwen2_5_vl"], quantization=request.param)
    first.save(tmp_path / "stage1")
    # build() draws B anew for trained adapters: load without that.
    torch.manual_seed(1)
    second = load(folders["qwen2_5_vl"], tmp_path / "stage1", quantization=request.param)
    return first, second, tmp_path


def load(folder: Path, adapter: Path | str, **changes: object) -> Captioner:
    settings = {"dtype": "float32", "min_pixels": 56 * 56, "max_pixels": 128 * 128, "lora": LoraSettings(4, 8)}
    policy = PolicySettings(path=str(folder), adapter=str(adapter), **(settings | changes))
    return load_captioner(policy, device())


def test_a_stage_begins_as_the_model_it_starts_from_and_moves_away_from_it(stages, folders):
    first, second, folder = stages
    # One base, one adapter: the same numbers, under the policy's name and under the reference's.
    assert torch.equal(scores(second, reference=False), scores(first, reference=False))
    assert torch.equal(scores(second, reference=True), scores(first, reference=False))
    assert (scores(first, reference=False) - scores(first, reference=True)).abs().max() > 1e-3  # not the bare base
    trained = {name for name, parameter in second.named_parameters() if parameter.requires_grad}
    assert trained == set(weights(second, TRAINED))

    start, base = weights(second, START), weights(second, "base_layer")
    before = {**weights(second, TRAINED)}
    prompts = [second.encode(question) for question in QUESTIONS[:2]]
    reference = second.frozen_logprobs(prompts, torch.arange(2), TOKENS, MASK, reference=True)
    policy, _ = second.logprobs(prompts, torch.arange(2), TOKENS, MASK)
    variant = replace(VARIANTS["grpo"], kl_coefficient=0.1)
    (advantages,) = there(torch.tensor([1.0, -1.0]))
    out = grpo_loss(policy, None, reference, advantages, MASK, variant=variant)
    # float32 sums in train mode and in eval mode: the same but for rounding, whose square is k3
    assert out.sums["kl"] < 1e-6
    out.loss.backward()
    optimizer = torch.optim.AdamW([p for p in second.parameters() if p.requires_grad], lr=1e-2)
    optimizer.step()
    assert all(not torch.equal(tensor, before[name]) for name, tensor in weights(second, TRAINED).items())
    assert all(torch.equal(tensor, start[name]) for name, tensor in weights(second, START).items())
    assert all(torch.equal(tensor, base[name]) for name, tensor in weights(second, "base_layer").items())
    assert torch.equal(scores(second, reference=True), scores(first, reference=False))
    assert (scores(second, reference=False) - scores(second, reference=True)).abs().max() > 1e-3

    # What is saved, and pushed to servers, is the one adapter that holds both stages.
    second.save(folder / "stage2")
    assert sorted(path.name for path in (folder / "stage2").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors"
    ]  # fmt: skip
    quantization = "nf4" if any("absmax" in name for name in second.state_dict()) else "none"
    third = load(folders["qwen2_5_vl"], folder / "stage2", quantization=quantization)
    assert torch.equal(scores(third, reference=False), scores(second, reference=False))


def test_the_reference_gives_the_trained_adapter_back_after_an_error(stages):
    _, second, _ = stages
    with pytest.raises(IndexError):
        second.frozen_logprobs([], torch.tensor([5]), TOKENS[:1], MASK[:1], reference=True)
    assert second.model.active_adapter == TRAINED
    assert all(parameter.requires_grad == (f".{TRAINED}." in name) for name, parameter in second.named_parameters())


def test_every_way_to_name_an_adapter(tmp_path):
    def fill(folder: Path) -> Path:
        folder.mkdir(parents=True)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (folder / name).touch()
        return folder

    plain = fill(tmp_path / "plain")
    run = fill(tmp_path / "runs" / "qa" / "version_9" / "adapter")
    newest = fill(tmp_path / "runs" / "qa" / "version_10" / "adapter")
    (tmp_path / "runs" / "qa" / "version_11").mkdir()  # still training
    beside = fill(tmp_path / "checkpoints" / "step=50-adapter")
    assert find_adapter(str(plain)) == plain
    assert find_adapter(str(run.parent)) == run
    assert find_adapter(str(tmp_path / "runs" / "qa")) == newest
    assert find_adapter(str(tmp_path / "checkpoints" / "step=50.ckpt")) == beside
    for missing in ("runs", "nowhere", "checkpoints/last.ckpt"):
        with pytest.raises(RacroError, match="expected a PEFT folder, the folder of a run"):
            find_adapter(str(tmp_path / missing))
    (plain / "adapter_model.safetensors").rename(plain / "adapter_model.bin")
    with pytest.raises(RacroError, match="holds no adapter_config.json and adapter_model.safetensors"):
        find_adapter(str(plain))


@pytest.fixture(scope="module")
def saved(folders, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    build(folders["qwen2_5_vl"]).save(folder)
    return folder


def test_another_rank_or_alpha_is_refused_with_what_to_set(folders, saved):
    with pytest.raises(RacroError, match=r"rank 4 and alpha 8, policy.lora says rank 8 .* \{rank: 4, alpha: 8\}"):
        load(folders["qwen2_5_vl"], saved, lora=LoraSettings(8, 8))
    with pytest.raises(RacroError, match="alpha 16"):
        load(folders["qwen2_5_vl"], saved, lora=LoraSettings(4, 16))


def test_other_layers_another_base_and_other_kinds_are_refused(folders, saved, tmp_path):
    config = json.loads((saved / "adapter_config.json").read_text())
    tensors = load_file(saved / "adapter_model.safetensors")

    def variation(name: str, kept: dict[str, torch.Tensor], **settings: object) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        save_file(kept, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(config | settings))
        return folder

    base = folders["qwen2_5_vl"]
    fewer = {name: tensor for name, tensor in tensors.items() if "down_proj" not in name}
    with pytest.raises(
        RacroError, match=r"4 missing from the files, e\.g\. .*down_proj.*holds only a part of the adapter"
    ):
        load(base, variation("fewer", fewer))
    wider = {name: torch.cat([tensor, tensor], dim=1).contiguous() for name, tensor in tensors.items()}
    with pytest.raises(RacroError, match="expected an adapter of the same base model"):
        load(base, variation("wider", wider))
    with pytest.raises(RacroError, match="sets use_dora, which make it another function"):
        load(base, variation("dora", tensors, use_dora=True))
    with pytest.raises(RacroError, match=r"uses lora_dropout 0\.1"):
        load(base, variation("dropout", tensors, lora_dropout=0.1))
    broken = variation("broken", tensors)
    (broken / "adapter_config.json").write_text("[]")
    with pytest.raises(RacroError, match="expected a JSON object"):
        load(base, broken)
