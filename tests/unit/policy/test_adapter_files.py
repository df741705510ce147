"""Adapters from anybody: whole, plain, of this base, or refused by name; in ask, test, export and fit alike."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path

import pytest
import torch
from peft import set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

from racro_pl.figure_world.models import EMBEDDED
from racro_pl.policy.adapter_files import read_adapter
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.policy.exporting import export_adapter, export_merged
from racro_pl.policy.loading import load_captioner, load_for_inference, probe_for_inference
from racro_pl.policy.lora import FusedLinear
from racro_pl.pretrained import sandbox
from racro_pl.types import RacroError
from tests.fakes.models import save_small_model
from tests.helpers.device import device
from tests.unit.policy.conftest import QUESTIONS, build

TOKENS = torch.randint(10, 200, (1, 5), generator=torch.Generator().manual_seed(2))
OLD = ("base_model.model.model.language_model.", "base_model.model.model.")


@pytest.fixture(scope="module")
def saved(folders, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "saved"
    build(folders["qwen2_5_vl"]).save(folder)
    return folder


@pytest.fixture
def vary(saved, tmp_path):
    """``vary(tensors, **fields)``: the adapter with other tensors and other fields."""

    def make(tensors=lambda w: w, **fields):
        folder = tmp_path / f"adapter-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(saved, folder)
        save_file(tensors(load_file(saved / "adapter_model.safetensors")), folder / "adapter_model.safetensors")
        config = json.loads((saved / "adapter_config.json").read_text()) | fields
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder

    return make


def policy(base: Path, adapter: Path, **changes) -> PolicySettings:
    settings = {"dtype": "float32", "min_pixels": 56 * 56, "max_pixels": 128 * 128, "lora": LoraSettings(4, 8)}
    return PolicySettings(path=str(base), adapter=str(adapter), **(settings | changes))


def export(settings: PolicySettings, merged: bool) -> None:
    out = Path(settings.adapter or "").parent / f"out-{merged}"
    out.mkdir(exist_ok=True)
    if merged:
        export_merged(settings, out, "float32")
    else:
        export_adapter(settings, out, "someone/base")


WAYS = {
    "ask and test": lambda settings: load_for_inference(settings, device()),
    "their probe": probe_for_inference,
    "export --merge": lambda settings: export(settings, True),
    "export": lambda settings: export(settings, False),
    "fit": lambda settings: load_captioner(settings, device()),
}


def scores(captioner) -> torch.Tensor:
    prompt = captioner.encode(QUESTIONS[0])
    mask = torch.ones_like(TOKENS, dtype=torch.bool)
    return captioner.frozen_logprobs([prompt], torch.tensor([0]), TOKENS, mask, reference=False)


def test_an_adapter_for_inference_is_the_one_that_was_trained(folders, saved):
    trained = build(folders["qwen2_5_vl"])
    read = load_for_inference(policy(folders["qwen2_5_vl"], saved), device())
    assert torch.equal(scores(read), scores(trained))
    assert not any(parameter.requires_grad for parameter in read.parameters())
    assert {type(module) for module in read.modules() if isinstance(module, BaseTunerLayer)} == {FusedLinear}


@pytest.mark.parametrize("load", [load_for_inference, load_captioner])
def test_a_tensor_that_peft_leaves_out_is_an_error(folders, saved, monkeypatch, load):
    def forgetful(model, tensors, **options):
        return set_peft_model_state_dict(model, dict(list(tensors.items())[1:]), **options)

    monkeypatch.setattr("peft.set_peft_model_state_dict", forgetful)
    with pytest.raises(RacroError, match=r"peft put 1 tensors in no place, e\.g\. base_model"):
        load(policy(folders["qwen2_5_vl"], saved), device())


def half(tensors):
    return dict(sorted(tensors.items())[: len(tensors) // 2])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("tensors", "fields", "message"),
    [
        (half, {}, r"missing from the files, e\.g\. base_model.*holds only a part"),
        (lambda w: {n.replace("lora_A", "lora_C"): t for n, t in w.items()}, {}, "in the files but not in the model"),
        (lambda w: {f"module.{n}": t for n, t in w.items()}, {}, "those of a state dict"),
        (lambda w: {n: torch.cat([t, t]) for n, t in w.items()}, {}, "of another size, e.g. base_model"),
        (lambda w: w | {"base_model.model.x.lora_magnitude_vector": torch.ones(2)}, {}, "DoRA"),
        (lambda w: w, {"use_dora": True}, "sets use_dora"),
        (lambda w: w, {"alpha_pattern": {"q_proj": 64}}, "sets alpha_pattern"),
    ],
    ids=["half", "other names", "wrapped", "other sizes", "magnitudes", "dora", "alpha pattern"],
)
def test_an_adapter_that_does_not_fit_is_refused_by_every_way_in(folders, vary, way, tensors, fields, message):
    with pytest.raises(RacroError, match=message):
        WAYS[way](policy(folders["qwen2_5_vl"], vary(tensors, **fields)))


@pytest.mark.parametrize("way", WAYS)
def test_an_adapter_of_another_base_is_refused_by_every_way_in(folders, saved, way, tmp_path):
    other = save_small_model(tmp_path / "other", "qwen2_5_vl")
    config = json.loads((other / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 64
    (other / "config.json").write_text(json.dumps(config))
    weights = load_file(other / "model.safetensors")
    narrow = {
        name: (t[:64] if "gate_proj" in name or "up_proj" in name else t[:, :64]).contiguous()
        if "language_model" in name and ".mlp." in name else t
        for name, t in weights.items()
    }  # fmt: skip
    save_file(narrow, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RacroError, match="of another size, e.g. .*mlp.*another model"):
        WAYS[way](policy(other, saved))


@pytest.mark.parametrize(
    "fields",
    [
        {"rank_pattern": {"q_proj": 2}}, {"use_rslora": True}, {"modules_to_save": ["lm_head"]}, {"bias": "all"},
        {"lora_bias": True}, {"layers_to_transform": [0]}, {"layer_replication": [[0, 1]]}, {"fan_in_fan_out": True},
        {"megatron_config": {"x": 1}}, {"eva_config": {"rho": 2}}, {"trainable_token_indices": [1]},
        {"exclude_modules": ["x"]}, {"use_qalora": True}, {"qalora_group_size": 8},
        {"loftq_config": {"loftq_bits": 4}}, {"corda_config": {"x": 1}}, {"arrow_config": {"x": 1}},
        {"revision": "abc"}, {"from_the_future": 1},
    ],
    ids=lambda fields: next(iter(fields)),
)  # fmt: skip
def test_every_field_that_changes_the_function_is_refused_by_name(vary, fields):
    with pytest.raises(RacroError, match=f"sets {next(iter(fields))}, which make"):
        read_adapter(vary(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"), ({"peft_type": None}, "peft_type is"),
        ({"r": 0}, "r is 0"), ({"r": True}, "r is True"), ({"r": 10**9}, "r is"), ({"r": "4"}, "r is '4'"),
        ({"lora_alpha": None}, "lora_alpha is None"), ({"lora_alpha": float("inf")}, "lora_alpha is inf"),
        ({"target_modules": None}, "target_modules is"), ({"target_modules": [1]}, "target_modules is"),
        ({"target_parameters": "x"}, "target_parameters is 'x'"), ({"target_parameters": [1]}, "target_parameters is"),
        ({"init_lora_weights": "pissa"}, "changes the base weights too"),
    ],
)  # fmt: skip
def test_numbers_and_kinds_that_make_no_adapter(vary, fields, message):
    with pytest.raises(RacroError, match=message):
        read_adapter(vary(**fields))


def test_a_module_that_an_adapter_names_is_not_imported(folders, vary, tmp_path, monkeypatch):
    marker = tmp_path / "ran"
    (tmp_path / "stranger.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    parallel = {"base_model_class": "X", "parent_library": "stranger"}
    folder = vary(megatron_core="stranger", auto_mapping=parallel, runtime_config={"x": "stranger"})
    load_for_inference(policy(folders["qwen2_5_vl"], folder), device())
    folder = vary(megatron_config={"a": 1}, megatron_core="stranger")
    with pytest.raises(RacroError, match="sets megatron_config"):
        load_for_inference(policy(folders["qwen2_5_vl"], folder), device())
    assert not marker.exists()
    assert "stranger" not in sys.modules


def test_dropout_is_off_in_inference_and_refused_where_it_would_act(folders, vary):
    folder = vary(lora_dropout=0.1)
    load_for_inference(policy(folders["qwen2_5_vl"], folder), device())
    with pytest.raises(RacroError, match=r"uses lora_dropout 0\.1"):
        load_captioner(policy(folders["qwen2_5_vl"], folder), device())


@pytest.mark.parametrize(
    "targets",
    [["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], r"model\.layers\..*_proj"],
    ids=["names", "pattern"],
)
def test_old_names_are_read_by_todays_and_it_is_said(folders, saved, vary, caplog, tmp_path, targets):
    base = folders["qwen2_5_vl"]
    if isinstance(targets, list):  # the tower has such names too: an adapter by names covers it
        towers = [f"model.visual.blocks.{i}.mlp.{n}_proj" for i in range(2) for n in ("gate", "up", "down")]
        tower = {f"base_model.model.{name.removeprefix('model.')}": name for name in towers}
        model = build(base).parts()[0]
        extra = {}
        for old, name in tower.items():
            layer = model.get_submodule(name)
            layer = getattr(layer, "base_layer", layer)
            extra[f"{old}.lora_A.weight"] = torch.randn(4, layer.in_features)
            extra[f"{old}.lora_B.weight"] = torch.zeros(layer.out_features, 4)
    else:
        extra = {}
    folder = vary(lambda w: {n.replace(*OLD): t for n, t in w.items()} | extra, target_modules=targets)
    with caplog.at_level(logging.WARNING):
        read = load_for_inference(policy(base, folder), device())
    assert torch.allclose(scores(read), scores(build(base)), atol=1e-6)
    assert len([r for r in caplog.records if "names of transformers before 4.52" in r.message]) == 1
    # An export is written by today's names, which other programs look for.
    out = tmp_path / "exported"
    out.mkdir()
    export_adapter(policy(base, folder), out, "someone/base")
    again = read_adapter(out)
    assert not again.old_names
    caplog.clear()
    assert torch.equal(scores(load_for_inference(policy(base, out), device())), scores(read))


def test_an_adapter_that_names_another_base_of_the_same_size_is_put_on_and_it_is_said(folders, vary, caplog):
    folder = vary(base_model_name_or_path="someone/else-7B")
    for load in (load_for_inference, load_captioner):
        caplog.clear()
        load(policy(folders["qwen2_5_vl"], folder), device())
        assert caplog.text.count("was trained on someone/else-7B and is put on") == 1


def test_an_ordinary_adapter_says_nothing(folders, saved, vary, caplog):
    base = folders["qwen2_5_vl"]
    load_for_inference(policy(base, saved), device())
    # Another path to a folder of the same name: a copy on another machine.
    load_for_inference(policy(base, vary(base_model_name_or_path=f"another-place/{base.name}")), device())
    assert caplog.text == ""


@pytest.mark.parametrize(("told", "warnings"), [("toy", 0), ("figure-captioner", 1), ("of-another-release", 1)])
def test_an_embedded_name_and_its_folder_are_the_same_base(folders, vary, caplog, monkeypatch, told, warnings):
    monkeypatch.setitem(EMBEDDED, "toy", folders["qwen2_5_vl"])
    load_for_inference(policy(folders["qwen2_5_vl"], vary(base_model_name_or_path=f"embedded:{told}")), device())
    assert caplog.text.count("is that the same model?") == warnings


def test_a_start_adapter_with_old_names_is_read_too(folders, saved, vary, caplog):
    folder = vary(lambda w: {n.replace(*OLD): t for n, t in w.items()})
    started = load_captioner(policy(folders["qwen2_5_vl"], folder), device())
    assert torch.equal(scores(started), scores(build(folders["qwen2_5_vl"])))
    assert "names of transformers before 4.52" in caplog.text


def test_old_and_new_names_at_once_are_refused(vary):
    with pytest.raises(RacroError, match="old and new names at once"):
        read_adapter(vary(lambda w: w | {n.replace(*OLD): t.clone() for n, t in w.items()}))


def test_a_pattern_that_backtracks_for_ever_is_ended(folders, vary, monkeypatch):
    monkeypatch.setattr(sandbox, "LIMIT_S", 1.0)
    folder = vary(target_modules=r"((\w|\.)+)+!")
    with pytest.raises(RacroError, match="the pattern in target_modules did not end within 1 s"):
        probe_for_inference(policy(folders["qwen2_5_vl"], folder))


@pytest.mark.parametrize(
    ("targets", "message"),
    [("nothing", "names no layer"), (["lm_heads"], "names no layer"), ("(", "pattern in target_modules failed"),
     (["norm"], "expected linear layers"), ("all-linear", "missing from the files")],
)  # fmt: skip
def test_targets_that_do_not_lead_to_the_tensors(folders, vary, targets, message):
    with pytest.raises(RacroError, match=message):
        probe_for_inference(policy(folders["qwen2_5_vl"], vary(target_modules=targets)))


def test_a_cut_off_adapter_says_so(saved, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(saved, folder)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(RacroError, match=r"adapter_model\.safetensors .* cut off"):
        read_adapter(folder)


def test_a_quantised_base_takes_the_adapter_too(folders, saved):
    settings = policy(folders["qwen2_5_vl"], saved, quantization="nf4")
    trained = load_captioner(settings, device())
    assert torch.equal(scores(load_for_inference(settings, device())), scores(trained))
