import json

import pytest
import torch
import yaml

from racro_pl.commands import export
from racro_pl.evaluation.captioner_source import find_policy
from racro_pl.evaluation.settings import CaptionerSettings
from racro_pl.figure_world.models import resolve_model
from racro_pl.figure_world.world import figure_questions
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_captioner, load_for_inference
from racro_pl.types import RacroError

BASE = "embedded:figure-captioner"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder whose adapter visibly changes what the captioner writes."""
    folder = tmp_path_factory.mktemp("runs") / "version_0"
    torch.manual_seed(3)
    captioner = load_captioner(PolicySettings(resolve_model(BASE), dtype="float32", gradient_checkpointing=False), CPU)
    with torch.no_grad():
        for name, parameter in captioner.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.05)
    captioner.save(folder / "adapter")
    config = {
        "model": {
            "policy": {"path": BASE, "dtype": "float32", "min_pixels": 3136, "max_pixels": 3136},
            "reward": {"reasoner": {"class_path": "HttpReasoner", "init_args": {"url": "http://secret", "model": "R"}}},
        },
        "data": {"reader": {"class_path": "racro_pl.data.FigureWorldReader"}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def captions(path, **settings):
    policy = find_policy(CaptionerSettings(str(path), min_pixels=3136, max_pixels=3136, **settings), on_gpu=False)
    captioner = load_for_inference(policy, CPU)
    prompts = [captioner.encode(question) for question in figure_questions("test", 24)]
    return captioner.generate(prompts, 1, 12, temperature=None).texts


def test_an_exported_adapter_writes_what_the_run_writes(run, tmp_path):
    assert export.main([str(run), str(tmp_path / "out")]) == 0
    assert captions(tmp_path / "out") == captions(run)
    assert captions(run) != captions(BASE)
    base = json.loads((tmp_path / "out/adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == resolve_model(BASE)


def test_a_merged_model_needs_no_adapter(run, tmp_path):
    assert export.main([str(run), str(tmp_path / "out"), "--merge", "--dtype", "float32"]) == 0
    assert not list((tmp_path / "out").glob("adapter*"))
    assert captions(tmp_path / "out") == captions(run)


def test_the_card_tells_where_it_comes_from_and_no_addresses(run, tmp_path):
    export.main([str(run), str(tmp_path / "out")])
    card = (tmp_path / "out/README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["library_name"], front["pipeline_tag"]) == ("peft", "image-text-to-text")
    assert "FigureWorldReader" in card
    assert "model: R" in card
    assert "secret" not in card


@pytest.mark.parametrize(
    ("source", "words"),
    [("nowhere", "no result of"), ("nowhere.ckpt", "no result of"), ("../nowhere", "no such folder")],
)
def test_what_is_no_result_is_refused(tmp_path, monkeypatch, source, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RacroError, match=words):
        export.main([source, "out"])
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RacroError, match="not empty"):
        export.main([str(run), str(tmp_path)])


def test_a_failed_push_is_one_message_and_keeps_the_folder(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RacroError, match="cannot push to me/model"):
        export.main([str(run), str(tmp_path / "out"), "--push", "me/model"])
    assert (tmp_path / "out/adapter_model.safetensors").is_file()
