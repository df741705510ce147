import json

import pytest

from racro_pl.evaluation.captioner_source import MAX_PIXELS, MIN_PIXELS, find_policy, identity
from racro_pl.evaluation.settings import CaptionerSettings
from racro_pl.figure_world.models import EMBEDDED
from racro_pl.types import RacroError
from tests.fakes.reasoner_server import FaultServer

CONFIG = """
model:
  policy: {path: "embedded:figure-captioner", quantization: nf4, dtype: bfloat16, min_pixels: 3136, max_pixels: 4000}
"""


@pytest.fixture
def run(tmp_path):
    """A run with two versions: version_10 is finished, version_11 is still being trained."""
    for number in (9, 10, 11):
        folder = tmp_path / "quickstart" / f"version_{number}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(CONFIG)
        if number < 11:
            write_adapter(folder / "adapter")
    return tmp_path / "quickstart"


def write_adapter(folder, base="/somewhere/base"):
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")


def test_a_run_is_its_newest_finished_version_with_the_settings_it_was_trained_with(run):
    policy = find_policy(CaptionerSettings(str(run)), on_gpu=False)
    assert policy.adapter == str(run / "version_10" / "adapter")
    assert policy.path == str(EMBEDDED["figure-captioner"])
    assert (policy.quantization, policy.dtype, policy.min_pixels, policy.max_pixels) == ("nf4", "bfloat16", 3136, 4000)


def test_the_evaluation_s_own_settings_win(run):
    policy = find_policy(CaptionerSettings(str(run), quantization="none", max_pixels=5000), on_gpu=False)
    assert (policy.quantization, policy.max_pixels, policy.min_pixels) == ("none", 5000, 3136)


def test_a_captioner_thinks_as_it_did_in_training(run):
    settings = CaptionerSettings(str(run))
    before = identity(settings, on_gpu=False)
    assert find_policy(settings, on_gpu=False).thinking is None
    file = run / "version_10" / "config.yaml"
    file.write_text(CONFIG.replace("nf4,", "nf4, thinking: false,"))
    assert find_policy(settings, on_gpu=False).thinking is False
    assert identity(settings, on_gpu=False) != before
    assert find_policy(CaptionerSettings(str(run), thinking=True), on_gpu=False).thinking is True


def test_a_checkpoint_s_adapter_finds_its_run_too(run):
    write_adapter(run / "version_9" / "checkpoints" / "last-adapter")
    policy = find_policy(CaptionerSettings(str(run / "version_9/checkpoints/last-adapter")), on_gpu=False)
    assert policy.quantization == "nf4"


def test_an_adapter_from_elsewhere_names_its_base(tmp_path):
    write_adapter(tmp_path / "adapter", base="Qwen/Qwen2.5-VL-3B-Instruct")
    policy = find_policy(CaptionerSettings(str(tmp_path / "adapter")), on_gpu=True)
    assert (policy.path, policy.dtype) == ("Qwen/Qwen2.5-VL-3B-Instruct", "bfloat16")
    assert (policy.min_pixels, policy.max_pixels) == (MIN_PIXELS, MAX_PIXELS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: {policy: {dtype: load}}", r"config\.yaml: model\.policy\.dtype is 'load'"),
        ("model: {policy: {quantization: [nf4]}}", r"config\.yaml: model\.policy\.quantization is"),
        ("model: {policy: {path: 5}}", r"config\.yaml: model\.policy\.path is '5'"),
        ("model: {policy: {max_pixels: many}}", r"config\.yaml: model\.policy\.max_pixels is 'many'"),
        ("model: {policy: {thinking: never}}", r"config\.yaml: model\.policy\.thinking is 'never'"),
        ("model: [", "config.yaml cannot be read"),
        ("[" * 5000, "config.yaml cannot be read"),
    ],
)
def test_a_configuration_that_came_with_an_adapter_is_read_with_care(tmp_path, content, message):
    write_adapter(tmp_path / "adapter")
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(RacroError, match=message):
        find_policy(CaptionerSettings(str(tmp_path / "adapter")), on_gpu=False)


def test_a_plain_model_has_no_adapter(tmp_path):
    assert find_policy(CaptionerSettings("Qwen/Qwen2.5-VL-3B-Instruct"), on_gpu=False).adapter is None
    (tmp_path / "config.json").write_text("{}")
    assert find_policy(CaptionerSettings(str(tmp_path)), on_gpu=False).path == str(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{", '{"base_model_name_or_path": null}'])
def test_an_adapter_without_a_base_is_told(tmp_path, content):
    write_adapter(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(content)
    with pytest.raises(RacroError, match="adapter_config.json"):
        find_policy(CaptionerSettings(str(tmp_path / "adapter")), on_gpu=False)


def test_a_run_without_a_result_is_told(tmp_path):
    (tmp_path / "version_0").mkdir()
    with pytest.raises(RacroError, match="has the training ended"):
        find_policy(CaptionerSettings(str(tmp_path)), on_gpu=False)


def test_retrained_weights_are_another_captioner(run):
    settings = CaptionerSettings(str(run))
    before = identity(settings, on_gpu=False)
    assert identity(settings, on_gpu=False) == before
    (run / "version_10/adapter/adapter_model.safetensors").write_bytes(b"other weights")
    assert identity(settings, on_gpu=False) != before
    assert identity(CaptionerSettings(str(run), max_new_tokens=3), on_gpu=False) != before


def test_another_model_or_image_size_at_the_same_address_is_another_captioner():
    with FaultServer(models=["first"]) as server:
        settings = CaptionerSettings(server.url)
        before = identity(settings, on_gpu=False)
        assert identity(CaptionerSettings(server.url, model="first"), on_gpu=False) == before
        assert identity(CaptionerSettings(server.url, max_pixels=4000), on_gpu=False) != before
        server.models = ["second"]
        assert identity(settings, on_gpu=False) != before


@pytest.mark.parametrize("path", ["runs/quickstart", "./mine", "/nowhere/at/all"])
def test_a_folder_that_is_not_there_is_no_hub_id(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RacroError, match="has it been trained yet"):
        find_policy(CaptionerSettings(path), on_gpu=False)
