"""What is refused of a model folder before any library opens it."""

from __future__ import annotations

import fnmatch
import json
import pickle
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from racro_pl.pretrained.folder import FolderError, check_configs, check_served, check_weights, fetch_folder, read_json


@pytest.mark.parametrize("name", ["captioner", "reasoner", "reasoner-b"])
def test_an_ordinary_folder_passes(spoil, name):
    folder = spoil(name)
    assert fetch_folder(str(folder), "m", weights=True) == folder


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}, "sets auto_map, which names Python code"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}, "sets auto_map"),
        ("processor_config.json", {"image_processor": {"auto_map": {"AutoProcessor": "x"}}}, "sets auto_map"),
        ("config.json", {"attn_implementation": "stranger/kernel"}, "a kernel to be downloaded and run"),
        ("config.json", {"_attn_implementation": "kernels-community/flash-attn2:x"}, "a kernel to be downloaded"),
        ("config.json", {"_attn_implementation_internal": "stranger/kernel"}, "a kernel to be downloaded"),
        ("config.json", {"text_config": {"attn_implementation": {"": "a/b"}}}, "a kernel to be downloaded"),
        ("config.json", {"vision_config": {"experts_implementation": "a/b@main"}}, "a kernel to be downloaded"),
        ("config.json", {"fusion_config": {"x": 1}}, "sets fusion_config"),
        ("config.json", {"transformers_weights": "other.safetensors"}, "sets transformers_weights"),
        ("config.json", {"quantization_config": {"quant_method": "awq"}}, r"quantised \(awq\)"),
        ("config.json", {"text_config": {"quantization_config": {"bits": 4}}}, "quantised"),
        ("generation_config.json", {"auto_map": {"x": "y"}}, "generation_config.json sets auto_map"),
    ],
)
def test_fields_that_lead_to_code_are_refused_by_name_wherever_they_stand(spoil, file, fields, message):
    with pytest.raises(FolderError, match=message):
        check_configs(spoil("captioner", fields=fields, file=file), "policy.path 'x'")


def test_fields_that_are_off_and_plain_names_pass(spoil):
    off = {"auto_map": None, "quantization_config": {}, "attn_implementation": "flash_attention_2"}
    check_configs(spoil("captioner", fields=off), "m")


def test_an_adapter_inside_a_model_folder_is_not_put_on_unasked(spoil):
    folder = spoil("captioner")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(FolderError, match="a model and an adapter"):
        check_configs(folder, "m")


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000, '{"a": NaN', ""])
def test_a_file_that_is_no_json_object_is_one_line(tmp_path: Path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(FolderError, match=r"config\.json .*(JSON|object)"):
        read_json(tmp_path / "config.json", "m")


def test_deep_nesting_is_walked_without_the_stack(tmp_path: Path):
    nested = '{"a":' * 900 + '{"auto_map": "x.y"}' + "}" * 900
    (tmp_path / "config.json").write_text(nested)
    with pytest.raises(FolderError, match="sets auto_map"):
        check_configs(tmp_path, "m")


def test_a_cut_off_file_says_so(spoil):
    folder = spoil("captioner")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-500])
    with pytest.raises(FolderError, match="not a complete safetensors file .* cut off"):
        check_weights(folder, "m")


def shard(folder: Path) -> None:
    """Split a folder's one weights file into two with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {f"model-0000{part + 1}-of-00002.safetensors": names[part::2] for part in range(2)}
    for file, part in files.items():
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_one_shard_of_two(spoil):
    folder = spoil("captioner")
    shard(folder)
    check_weights(folder, "m")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FolderError, match="1 of 2 weights files are missing, e.g. model-00002-of-00002"):
        check_weights(folder, "m")
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(FolderError, match=r"there is model-00001-of-00002\.safetensors, but no .*index"):
        check_weights(folder, "m")


@pytest.mark.parametrize("sharded", [False, True])
def test_of_a_hub_repository_only_what_was_looked_at_is_loaded(spoil, tmp_path, monkeypatch, sharded):
    """First the small files, then the weights of that very commit; never a pickle, code, or a folder inside."""
    source = spoil("captioner")
    if sharded:
        shard(source)
    cache = tmp_path / "snapshots" / "c0ffee"
    cache.mkdir(parents=True)
    calls = []

    def snapshot_download(repository, allow_patterns, ignore_patterns, revision):
        calls.append((tuple(allow_patterns), ignore_patterns, revision))
        for file in source.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, cache)
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    (source / "pytorch_model.bin").touch()
    (source / "modeling.py").touch()
    assert fetch_folder("someone/model", "m", weights=True) == cache
    assert [revision for _, _, revision in calls] == [None, "c0ffee"]
    assert all(ignored == ["*/*"] for _, ignored, _ in calls)
    assert not {"pytorch_model.bin", "modeling.py"} & {file.name for file in cache.iterdir()}

    (source / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "modeling.Model"}}))
    calls.clear()
    with pytest.raises(FolderError, match="sets auto_map"):
        fetch_folder("someone/model", "m", weights=True)
    assert len(calls) == 1


def test_a_hub_repository_that_cannot_be_reached_is_one_line(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network\nat all")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(FolderError, match=r"^m: cannot load it \(no network\)\. Expected a model folder, or the id"):
        fetch_folder("someone/model", "m")


@pytest.mark.parametrize(
    "name", [f"{300 * 'a'}.safetensors", "evil.bin", "../evil.safetensors", "/etc/e.safetensors", 5, None]
)
def test_an_index_names_safetensors_files_beside_it_and_nothing_else(spoil, name):
    folder = spoil("captioner")
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(FolderError, match="expected safetensors files beside it"):
        check_weights(folder, "m")


def test_pickles_and_distributed_checkpoints_are_not_opened(spoil):
    folder = spoil("captioner")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(FolderError, match=r"pytorch_model\.bin is a pickle"):
        check_weights(folder, "m")
    (folder / "shard-00000-model-00001-of-00002.safetensors").write_bytes(b"")
    with pytest.raises(FolderError, match="distributed checkpoint"):
        check_weights(folder, "m")


def test_a_folder_that_another_program_serves_holds_no_code_and_no_pickles(spoil):
    check_served("someone/model", "m")
    check_served(str(spoil("reasoner")), "m")
    # Which formats it reads is that program's business.
    check_served(str(spoil("reasoner", fields={"quantization_config": {"quant_method": "awq"}})), "m")
    code = str(spoil("reasoner", fields={"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(FolderError, match="sets auto_map, which names Python code"):
        check_served(code, "m")
    check_served(code, "m", trusted=True)
    folder = spoil("reasoner")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    for trusted in (False, True):
        with pytest.raises(FolderError, match=r"pytorch_model\.bin is a pickle"):
            check_served(str(folder), "m", trusted=trusted)
