"""Every recipe of configs/experiment through the command line, on small random models of its captioner's class."""

from __future__ import annotations

import csv
import json
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import yaml
from PIL import Image
from pyarrow import parquet

from racro_pl.commands.lightning import parts_of
from racro_pl.commands.test import build_parser
from racro_pl.policy.config import LoraSettings
from tests.fakes.chat_templates import QWEN3, use_template
from tests.fakes.models import save_small_model
from tests.fakes.reasoner_server import FaultServer
from tests.fakes.rollout_server import FakeVllm
from tests.helpers.families import save_small_family
from tests.integration.test_cli import call
from tests.unit.policy.conftest import build

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "configs/experiment"
STAGES = ("qa", "cro", "vpo", "joint")
UP_TO_8B = ("qwen2.5-vl-3b", "qwen2.5-vl-7b", "qwen3-vl-4b", "qwen3-vl-8b")
YOUNGER = ("qwen3.5-4b", "internvl3.5-4b")
FITS = {"24gb_qlora": (*UP_TO_8B, *YOUNGER), "8gpu_lora": (*UP_TO_8B, "qwen2.5-vl-32b"), "8gpu_full": UP_TO_8B}
"""Which captioner on which machine: the table of docs/reproducing.md."""
ALWAYS = {*((hardware, "qwen2.5-vl-3b") for hardware in FITS), ("24gb_qlora", "qwen3-vl-4b"),
          ("8gpu_lora", "qwen2.5-vl-32b")}  # fmt: skip
"""What is run in every stage. The rest joins the same layers and names other models: one stage does."""
QUICK = {*(("cro", *cell) for cell in ALWAYS), *((stage, "24gb_qlora", "qwen2.5-vl-3b") for stage in ("qa", "vpo"))}
"""What is run each time: every machine and captioner in one stage, and every stage but joint on one machine."""
CELLS = [
    pytest.param(stage, hardware, model, marks=[] if (stage, hardware, model) in QUICK else [pytest.mark.slow])
    for stage in STAGES
    for hardware, models in FITS.items()
    for model in models
    if stage == "cro" or ((hardware, model) in ALWAYS and (stage, hardware) != ("joint", "8gpu_full"))
]
REASONER = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
QUESTIONS = 2
PIXELS = 56 * 56


def family_of(model: str) -> str:
    families = {"qwen2.5-vl": "qwen2_5_vl", "qwen3-vl": "qwen3_vl", "qwen3.5": "qwen3_5", "internvl3.5": "internvl"}
    return next(family for name, family in families.items() if model.startswith(name))


def read(folder: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((RECIPES / folder / f"{name}.yaml").read_text())


def files(stage: str, hardware: str, model: str) -> list[str]:
    layers = (f"stages/{stage}", f"hardware/{hardware}", f"models/{model}")
    return [part for layer in layers for part in ("--config", str(RECIPES / f"{layer}.yaml"))]


def guess(messages: list[dict[str, Any]]) -> str:
    """In R1's format, and right for about half of all captions."""
    return rf"So.</think>\boxed{{{42 if zlib.crc32(messages[-1]['content'].encode()) % 2 else 7}}}"


class SmallModels(dict[str, Path]):
    """A folder for each family, made when it is first asked for."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self.factory = factory

    def __missing__(self, family: str) -> Path:
        save = save_small_model if family in ("qwen2_5_vl", "qwen3_vl") else save_small_family
        self[family] = save(self.factory.mktemp(family), family)
        if family == "qwen3_5":
            use_template(self[family], QWEN3)  # with the switch of the real one
        return self[family]


@pytest.fixture(scope="module")
def captioners(tmp_path_factory: pytest.TempPathFactory) -> SmallModels:
    return SmallModels(tmp_path_factory)


@pytest.fixture(scope="module")
def virl39k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in ViRL39K's layout: rows with one and with two images."""
    folder = tmp_path_factory.mktemp("ViRL39K")
    (folder / "images").mkdir()
    rows = []
    for index in range(4):
        names = [f"images/{index}-{number}.png" for number in range(1 + index % 2)]
        for name in names:
            Image.new("RGB", (60 + 10 * index, 60), "red").save(folder / name)
        rows.append({
            "question": "<image>" * len(names) + f"What is {index}?", "answer": "\\boxed{42}",
            "PassRate_32BTrained": 0.5, "PassRate_7BBase": -1.0, "category": "Spatial Reasoning", "source": "Processed",
            "qid": f"Processed-{index}", "image": names,
        })  # fmt: skip
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "39Krelease.parquet")
    return folder


@pytest.fixture(scope="module")
def reasoner() -> Iterator[FaultServer]:
    with FaultServer(models=[REASONER], context=16384, answer=guess) as server:
        yield server


@pytest.fixture(scope="module")
def samplers(captioners: dict[str, Path]) -> Iterator[dict[str, FakeVllm]]:
    changes = {"dtype": "bfloat16", "lora": LoraSettings(), "min_pixels": 1, "max_pixels": 2 * PIXELS}
    with (
        FakeVllm(build(captioners["qwen2_5_vl"], **changes)) as second,
        FakeVllm(build(captioners["qwen3_vl"], **changes)) as third,
    ):
        yield {"qwen2_5_vl": second, "qwen3_vl": third}


class Run:
    """Runs a recipe with small stand-ins for all that is large, and reads what it leaves."""

    def __init__(self, captioners, virl39k, reasoner, samplers, capfd, tmp_path) -> None:
        self.captioners, self.samplers, self.reasoner = captioners, samplers, reasoner
        self.capfd, self.runs = capfd, tmp_path
        self.common = {
            "model.policy.min_pixels": PIXELS, "model.policy.max_pixels": 2 * PIXELS,
            "model.rollout.init_args.max_new_tokens": 8, "data.reader.init_args.root": virl39k,
            "data.reader.init_args.validation_share": 0.0, "data.questions_per_step": QUESTIONS,
            "trainer.accelerator": "cpu", "trainer.devices": 1, "trainer.strategy": "auto", "trainer.max_steps": 1,
        }  # fmt: skip

    def __call__(self, stage: str, hardware: str, model: str, *more: str) -> dict[str, Any]:
        """Make one step; returns the resolved settings."""
        family = family_of(model)
        stand_ins = self.common | {"model.policy.path": self.captioners[family]}
        if stage != "qa":
            stand_ins["model.reward.reasoner.init_args.url"] = self.reasoner.url
        if hardware == "8gpu_lora":
            stand_ins |= {
                "model.rollout.init_args.server": "null",
                "model.rollout.init_args.url": self.samplers[family].url,
            }
        arguments = [f"--{name}={value}" for name, value in stand_ins.items()]
        code, printed = call(
            self.capfd, "fit", *files(stage, hardware, model), *arguments, "--runs", str(self.runs), *more
        )
        assert code == 0, printed
        return yaml.safe_load((self.folder(stage) / "config.yaml").read_text())

    def folder(self, stage: str) -> Path:
        return self.runs / stage / "version_0"


@pytest.fixture
def fit(captioners, virl39k, reasoner, samplers, capfd, tmp_path) -> Run:
    return Run(captioners, virl39k, reasoner, samplers, capfd, tmp_path)


@pytest.mark.parametrize(("stage", "hardware", "model"), CELLS)
def test_a_recipe_makes_a_step(stage, hardware, model, fit, reasoner):
    asked = len(reasoner.chats)
    settings = fit(stage, hardware, model)
    folder = fit.folder(stage)
    row = next(csv.DictReader((folder / "metrics.csv").open()))
    group = settings["model"]["rollout"]["init_args"]["group_size"]
    assert group == (8 if stage == "qa" and model != "qwen2.5-vl-32b" else 4)
    roles = ["caption", "answer"] if stage == "joint" else ["answer" if stage == "qa" else "caption"]
    written = [json.loads(line)["role"] for line in (folder / "captions.jsonl").read_text().splitlines()]
    assert written == [role for role in roles for _ in range(QUESTIONS * group)]
    assert math.isfinite(float(row["policy/grad_norm"]))
    assert float(row["reward/unscored_share"]) == 0
    # Shorter texts may be empty, which nobody is asked about.
    assert (0 < len(reasoner.chats) - asked <= 1 + QUESTIONS * group) == (stage != "qa")
    for chat in reasoner.chats[asked + 1 :]:
        assert (chat["temperature"], chat["top_p"], chat["max_tokens"]) == (1.0, 1.0, 8192)
    # Whoever sampled, it was the policy: rounding in bfloat16 and 4 bits parts the two by no more.
    # Without a signal in any group nothing is forwarded here, and so nothing compared.
    forwarded = hardware == "8gpu_lora" or float(row["policy/skipped_captions"]) < QUESTIONS * group
    assert ("importance/logprob_gap" in row) == forwarded
    assert float(row.get("importance/logprob_gap", 0)) < 0.1
    # What another stage, an export or an evaluation starts from.
    kind = "model" if hardware == "8gpu_full" else "adapter"
    assert (folder / kind / ("config.json" if kind == "model" else "adapter_config.json")).is_file()


def reward(name: str) -> list[str]:
    return ["--config", str(RECIPES / f"rewards/{name}.yaml")]


def test_a_reward_of_described_answers_makes_a_step(fit, reasoner):
    """Two questions, eight texts each; every text that says something before its box is read by the reasoner."""
    asked = len(reasoner.chats)
    url = f"--model.reward.init_args.reasoner.init_args.url={reasoner.url}"
    settings = fit("qa", "24gb_qlora", "qwen2.5-vl-3b", *reward("described_answers"), url)
    assert settings["model"]["reward"]["class_path"].endswith(".DescribedAnswers")
    lines = [json.loads(line) for line in (fit.folder("qa") / "captions.jsonl").read_text().splitlines()]
    assert len(lines) == QUESTIONS * 8
    assert 0 < len(reasoner.chats) - asked <= 1 + len(lines)
    for line in lines:
        earned = line["parts"]
        assert line["reward"] == pytest.approx(0.9 * earned["correct"] + 0.1 * earned["answered"] + earned["described"])


def test_a_reward_of_several_questions_makes_a_step(capfd, tmp_path):
    """In the reckoning world, four questions to a picture: 2 captions of 2 questions, 4 calls each."""
    small = {"train": 8, "validation": 4, "test": 4, "questions_per_picture": 4}
    arguments = [f"--data.reader.init_args.{name}={value}" for name, value in small.items()]
    arguments += ["--data.questions_per_step=2", "--model.rollout.init_args.group_size=2", "--trainer.max_steps=1"]
    code, printed = call(
        capfd, "fit", "--config", str(ROOT / "configs/reckoning.yaml"), *reward("several_questions"), *arguments,
        "--trainer.callbacks=null", "--runs", str(tmp_path),
    )  # fmt: skip
    assert code == 0, printed
    row = next(csv.DictReader((tmp_path / "reckoning/version_0/metrics.csv").open()))
    assert (float(row["reasoner/captions"]), float(row["reasoner/requests"])) == (4, 16)


def test_the_second_stage_starts_from_the_first(fit):
    """The commands of docs/reproducing.md, for adapters and for all weights."""
    fit("qa", "24gb_qlora", "qwen2.5-vl-3b")
    settings = fit("cro", "24gb_qlora", "qwen2.5-vl-3b", f"--model.policy.adapter={fit.runs / 'qa'}")
    assert str(fit.folder("qa")) in settings["model"]["policy"]["adapter"]
    fit("qa", "8gpu_full", "qwen2.5-vl-3b", "--name", "full")
    settings = fit("vpo", "8gpu_full", "qwen2.5-vl-3b", f"--model.policy.path={fit.folder('full') / 'model'}")
    assert settings["model"]["policy"]["path"].endswith("full/version_0/model")


def test_a_recipe_can_be_printed_into_one_file(capfd, tmp_path):
    _, printed = call(capfd, "fit", *files("cro", "8gpu_lora", "qwen2.5-vl-7b"), "--print_config")
    (tmp_path / "run.yaml").write_text(printed)
    module, data = parts_of(str(tmp_path / "run.yaml"))
    assert module.policy_settings.path == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert module.engine.server_settings.env == {"CUDA_VISIBLE_DEVICES": "4,5"}
    assert (module.engine.group_size, module.engine.max_new_tokens) == (4, 2048)
    assert data.questions_per_step == 256
    assert yaml.safe_load(printed)["trainer"]["devices"] == 4


def test_stages_differ_in_what_they_are_for_only():
    cro, vpo, qa, joint = (read("stages", name) for name in ("cro", "vpo", "qa", "joint"))
    penalty = {"name": "vpo", "caption_penalty": 0.1, "caption_judge": "policy"}
    assert vpo == cro | {"name": "vpo", "model": cro["model"] | {"objective": cro["model"]["objective"] | penalty}}
    both = {"name": "joint", "answer_weight": 0.5, "answer_kl_coefficient": 0.0, "answer_clip_high": 0.25}
    assert joint == cro | {"name": "joint", "model": cro["model"] | {"objective": cro["model"]["objective"] | both}}
    own = {"name": "qa", "clip_high": 0.25, "kl_coefficient": 0.0}
    assert qa["model"]["objective"] == cro["model"]["objective"] | own
    assert (qa["data"], qa["model"]["policy"]) == (cro["data"], cro["model"]["policy"])
    assert "reward" not in qa["model"]


@pytest.mark.parametrize("hardware", FITS)
def test_a_machine_takes_what_it_is_named_for(hardware):
    policy, trainer = read("hardware", hardware)["model"]["policy"], read("hardware", hardware)["trainer"]
    assert (policy["quantization"] == "nf4") == (hardware == "24gb_qlora")
    assert (policy["lora"] is None) == (hardware == "8gpu_full")
    assert trainer["accelerator"] == "gpu"
    assert trainer["devices"] == {"24gb_qlora": 1, "8gpu_lora": 4, "8gpu_full": 8}[hardware]


def test_every_file_is_a_layer_that_is_tested_and_told():
    layers = {folder: {path.stem for path in (RECIPES / folder).iterdir()} for folder in
              ("stages", "rewards", "hardware", "models")}  # fmt: skip
    rewards = {"several_questions", "described_answers"}
    models = {*FITS["24gb_qlora"], *FITS["8gpu_lora"]}
    assert layers == {"stages": {*STAGES}, "rewards": rewards, "hardware": {*FITS}, "models": models}
    told = (ROOT / "docs/reproducing.md").read_text()
    for name in set().union(*layers.values()):
        assert re.search(rf"\b{re.escape(name)}\b", told), name


def test_the_paper_s_table_asks_as_the_paper_does():
    config = build_parser().parse_args(["--config", str(RECIPES / "test_paper.yaml")])
    entries = build_parser().instantiate(config).reasoners
    assert [entry.name for entry in entries] == ["r1-7b", "qwen3-8b", "r1-32b"]
    for entry in entries:
        assert entry.reasoner.sampling == {"temperature": 0.6, "top_p": 0.95, "max_tokens": 8192}
    assert len({entry.reasoner.url for entry in entries}) == 3
    assert entries[1].reasoner.extra_body == {"top_k": -1, "chat_template_kwargs": {"enable_thinking": True}}
    assert json.loads(json.dumps(config.as_dict(), default=str))["rule"] == "strict"
