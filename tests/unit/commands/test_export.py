import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from racro_pl.commands import export
from racro_pl.commands.model_card import model_card
from racro_pl.commands.public import SERVED
from racro_pl.evaluation.captioner_source import find_policy
from racro_pl.evaluation.results import Cell, Results, System
from racro_pl.evaluation.settings import CaptionerSettings
from racro_pl.figure_world.models import resolve_model
from racro_pl.figure_world.world import figure_questions
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_captioner, load_for_inference
from racro_pl.text.captioner_prompt import ANSWER_REQUEST, REQUEST
from racro_pl.types import RacroError

BASE = "embedded:figure-captioner"
CPU = torch.device("cpu")
S = "SENTINEL"
"""Stands wherever something may be that no one else may read."""
CONFIG = {
    "name": S,
    "runs": f"/home/{S}/runs",
    "model": {
        "policy": {"path": BASE, "dtype": "float32", "min_pixels": 3136, "max_pixels": 3136, "adapter": f"/{S}/a"},
        "rollout": {
            "class_path": "racro_pl.rollout.VllmEngine",
            "init_args": {
                "group_size": 4, "max_new_tokens": 12, "url": f"http://{S}:8000/v1",
                "server": {"python": f"/{S}/python", "host": S, "env": {"HF_TOKEN": S}, "extra_args": ["--api-key", S]},
            },
        },
        "reward": {
            "class_path": f"{S}.private.rewards.GainScorer",
            "init_args": {
                "cache_path": f"/{S}/cache", "votes": 3, "dict_kwargs": {"key": S}, "combine": S, "name": S,
                "reasoner": {
                    "class_path": "racro_pl.reward.ReasonerPool",
                    "init_args": {
                        "reasoners": [
                            {
                                "class_path": "racro_pl.reward.HttpReasoner",
                                "init_args": {
                                    "url": f"https://me:{S}@{S}/v1", "model": f"{S}/team/Qwen3-8B", "max_tokens": 64,
                                    "api_key_env": S, "extra_body": {"headers": {"Authorization": S}, "user": S},
                                },
                            },
                        ],
                    },
                },
            },
        },
        "objective": {"name": "cro", "loss": "grpo", "learning_rate": 1e-4},
    },
    "data": {
        "reader": {"class_path": "racro_pl.data.JsonlReader", "init_args": {"path": f"/{S}/rows.jsonl",
                   "images_root": S, "validation_share": 0.1}},
        "questions_per_step": 8,
    },
    "trainer": {"logger": {"class_path": "WandbLogger", "init_args": {"project": S}}, "default_root_dir": f"/{S}"},
}  # fmt: skip


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
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
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
    assert base == BASE


def test_a_merged_model_needs_no_adapter(run, tmp_path):
    assert export.main([str(run), str(tmp_path / "out"), "--merge", "--dtype", "float32"]) == 0
    assert not list((tmp_path / "out").glob("adapter*"))
    assert captions(tmp_path / "out") == captions(run)


def test_the_card_says_what_was_done_and_nothing_of_where_or_with_which_key(run, tmp_path):
    export.main([str(run), str(tmp_path / "out")])
    card = (tmp_path / "out/README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["library_name"], front["pipeline_tag"]) == ("peft", "image-text-to-text")
    told = {
        part.split("\n", 1)[0]: yaml.safe_load(part.split("```yaml")[1].split("```")[0])
        for part in card.split("\n## ")
        if "```yaml" in part
    }
    assert told == {
        "Data": {"class": "JsonlReader", "validation_share": 0.1},
        "Reasoner and reward": {
            "class": "GainScorer",
            "votes": 3,
            "reasoner": {
                "class": "ReasonerPool",
                "reasoners": [{"class": "HttpReasoner", "model": "Qwen3-8B", "max_tokens": 64}],
            },
        },
        "Sampling": {"class": "VllmEngine", "group_size": 4, "max_new_tokens": 12},
        "Objective": {"name": "cro", "loss": "grpo", "learning_rate": 1e-4},
        "Policy": {"dtype": "float32", "min_pixels": 3136, "max_pixels": 3136},
    }
    assert S not in card


@pytest.mark.parametrize("options", [(), ("--merge",)], ids=["adapter", "merged"])
def test_no_exported_file_names_a_folder_of_this_machine(run, tmp_path, options):
    export.main([str(run), str(tmp_path / "out"), *options])
    for file in (tmp_path / "out").iterdir():
        for place in (str(run.parent), resolve_model(BASE), str(tmp_path), S):
            assert place.encode() not in file.read_bytes(), file.name


@pytest.mark.parametrize("options", [(), ("--merge", "--dtype", "float32")], ids=["adapter", "merged"])
def test_the_cards_code_writes_the_captions_of_the_run(run, tmp_path, monkeypatch, capsys, options):
    export.main([str(run), str(tmp_path / "out"), *options])
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out/README.md").read_text(), re.DOTALL)
    question = figure_questions("test", 1)[0]
    (tmp_path / "out/picture.png").write_bytes(question.images[0].data)
    monkeypatch.chdir(tmp_path / "out")
    exec(code.replace('"What is shown in the picture?"', repr(question.text)), {})
    assert capsys.readouterr().out.splitlines()[-1] == captions(run)[0]


@pytest.mark.parametrize("options", [(), ("--merge", "--dtype", "float32")], ids=["adapter", "merged"])
def test_a_base_that_penalises_repetition_does_so_in_no_exported_captioner(
    local_base, tmp_path, monkeypatch, capsys, options
):
    base = Path(find_policy(CaptionerSettings(str(local_base)), on_gpu=False).path)
    settings = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps(settings | {"repetition_penalty": 9.0, "top_k": 1}))
    export.main([str(local_base), str(tmp_path / "out"), "--base", str(base), *options])
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out/README.md").read_text(), re.DOTALL)
    question = figure_questions("test", 1)[0]
    (tmp_path / "out/picture.png").write_bytes(question.images[0].data)
    monkeypatch.chdir(tmp_path / "out")
    exec(code.replace('"What is shown in the picture?"', repr(question.text)), {})
    assert capsys.readouterr().out.splitlines()[-1] == captions(local_base)[0]
    if options:
        assert "penalty" not in (tmp_path / "out/generation_config.json").read_text()


def test_the_card_of_an_answering_captioner_asks_for_answers(run):
    config = {"model": {"objective": {"name": "qa"}}}
    card = model_card(PolicySettings(BASE), config, None, base="Qwen/Qwen2.5-VL-3B-Instruct", whole=False)
    assert ANSWER_REQUEST in card.replace("\\\\", "\\")
    assert REQUEST not in card
    assert 'from_pretrained("Qwen/Qwen2.5-VL-3B-Instruct"' in card


def test_scores_in_the_card_name_no_server(run):
    cell = Cell("x", "X", "accuracy", System("llm.intern.example:8000", "direct", None), 0.5, 0.4, 0.6, 2, 2, 0.0, 0,
                "strict", {}, {})  # fmt: skip
    for place in ("http://llm.intern.example:8000/v1", SERVED):
        settings = {"rule": "strict", "captioners": {"llm.intern.example:8000": place}}
        results = Results("t", "now", settings, (cell,), (), ())
        card = model_card(PolicySettings(BASE), {}, results, base=BASE, whole=True)
        assert "| a served captioner · direct | X (accuracy) | 50.0" in card
        assert "intern.example" not in card


@pytest.fixture
def local_base(run, tmp_path):
    """The run, as trained from a folder of this machine."""
    shutil.copytree(resolve_model(BASE), tmp_path / S / "my-base")
    shutil.copytree(run, tmp_path / "run")
    config = {"model": {"policy": CONFIG["model"]["policy"] | {"path": str(tmp_path / S / "my-base")}}}
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "run"


@pytest.mark.parametrize("options", [(), ("--push", "me/model"), ("--push", "me/model", "--base", "{base}")])
def test_an_adapter_on_a_local_folder_needs_a_name_for_its_base(local_base, tmp_path, options):
    options = [option.format(base=tmp_path / S / "my-base") for option in options]
    with pytest.raises(RacroError, match="which others do not have: name .* --base HUB_ID"):
        export.main([str(local_base), str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


def test_the_name_that_is_given_is_the_only_one_in_the_files(local_base, tmp_path):
    export.main([str(local_base), str(tmp_path / "out"), "--base", "me/my-base"])
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "me/my-base"
    card = (tmp_path / "out/README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "me/my-base"
    assert not [file.name for file in (tmp_path / "out").iterdir() if S.encode() in file.read_bytes()]


def test_a_merged_model_of_a_local_folder_tells_its_last_part(local_base, tmp_path):
    export.main([str(local_base), str(tmp_path / "out"), "--merge"])
    card = (tmp_path / "out/README.md").read_text()
    assert "A captioner for *my-base*" in card
    assert "base_model" not in card
    assert not [file.name for file in (tmp_path / "out").iterdir() if S.encode() in file.read_bytes()]


@pytest.mark.parametrize("options", [(), ("--merge",)], ids=["adapter", "merged"])
def test_exported_files_follow_the_umask(run, tmp_path, options):
    before = os.umask(0o022)
    try:
        export.main([str(run), str(tmp_path / "out"), *options])
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "out").iterdir()} == {0o644}


@pytest.mark.parametrize(
    ("source", "words"),
    [("nowhere", "not a result of"), ("nowhere.ckpt", "not a result of"), ("../nowhere", "no such folder")],
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
