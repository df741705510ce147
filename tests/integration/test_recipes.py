"""Every recipe of configs/experiment through the command line, on small random models of its captioner's class."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pyarrow
import pytest
import yaml
from PIL import Image
from pyarrow import parquet

from racro_pl.rollout.vllm_server import ServerSettings, rollout_server
from racro_pl.policy.config import LoraSettings, PolicySettings
from tests.fakes.models import save_small_model
from tests.fakes.reasoner_server import FaultServer
from tests.fakes.rollout_server import FakeVllm
from tests.integration.test_cli import call
from tests.unit.policy.conftest import build

RECIPES = Path(__file__).parents[2] / "configs/experiment"
STAGES = ("cro",)
SMALL = ("qwen2.5-vl-3b", "qwen2.5-vl-7b", "qwen3-vl-4b", "qwen3-vl-8b")
FITS = {"24gb_qlora": SMALL, "8gpu_lora": (*SMALL, "qwen2.5-vl-32b"), "8gpu_full": SMALL}
"""What goes on what: the table of docs/reproducing.md."""
CELLS = [(stage, hardware, model) for stage, hardware in product(STAGES, FITS) for model in FITS[hardware]]
REASONER = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
QUESTIONS = 2
IMAGE = 56 * 56


def family_of(model: str) -> str:
    return "qwen3_vl" if model.startswith("qwen3") else "qwen2_5_vl"


def files(*cell: str) -> list[str]:
    folders = ("stages", "hardware", "models")
    return [part for folder, name in zip(folders, cell, strict=True)
            for part in ("--config", str(RECIPES / folder / f"{name}.yaml"))]  # fmt: skip


@pytest.fixture(scope="session")
def captioners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save_small_model(tmp_path_factory.mktemp(family), family) for family in ("qwen2_5_vl", "qwen3_vl")}


@pytest.fixture(scope="session")
def virl39k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of ViRL39K's layout: rows with one and with two images."""
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


@pytest.fixture(scope="session")
def reasoner() -> Iterator[FaultServer]:
    """Right about half of the time, so that captions of a group differ in reward."""
    luck = random.Random(0)
    with FaultServer(
        models=[REASONER], context=16384, answer=lambda _: rf"So.</think>\boxed{{{luck.choice((42, 7))}}}"
    ) as server:
        yield server


@pytest.fixture(scope="session")
def samplers(captioners: dict[str, Path]) -> Iterator[dict[str, FakeVllm]]:
    changes = {"dtype": "bfloat16", "lora": LoraSettings(), "min_pixels": 1, "max_pixels": 2 * IMAGE}
    with (
        FakeVllm(build(captioners["qwen2_5_vl"], **changes)) as second,
        FakeVllm(build(captioners["qwen3_vl"], **changes)) as third,
    ):
        yield {"qwen2_5_vl": second, "qwen3_vl": third}


@pytest.mark.parametrize(("stage", "hardware", "model"), CELLS)
def test_a_recipe_makes_a_step(stage, hardware, model, captioners, virl39k, reasoner, samplers, tmp_path, capfd):
    family = family_of(model)
    stand_ins = {
        "model.policy.path": captioners[family], "model.policy.min_pixels": IMAGE, "model.policy.max_pixels": 2 * IMAGE,
        "model.rollout.init_args.max_new_tokens": 8, "model.reward.reasoner.init_args.url": reasoner.url,
        "data.reader.init_args.root": virl39k, "data.reader.init_args.validation_share": 0.0,
        "data.questions_per_step": QUESTIONS, "trainer.accelerator": "cpu", "trainer.devices": 1,
        "trainer.strategy": "auto", "trainer.max_steps": 1,
    }  # fmt: skip
    if hardware == "8gpu_lora":
        stand_ins |= {
            "model.rollout.init_args.server": "null", "model.rollout.init_args.url": samplers[family].url,
            # Random weights of this size round by far more than trained ones.
            "model.rollout.init_args.canary_threshold": 1.0,
        }  # fmt: skip
    before = len(reasoner.chats)
    arguments = [f"--{name}={value}" for name, value in stand_ins.items()]
    code, printed = call(capfd, "fit", *files(stage, hardware, model), *arguments, "--runs", str(tmp_path))
    assert code == 0, printed

    version = tmp_path / stage / "version_0"
    settings = yaml.safe_load((version / "config.yaml").read_text())
    row = next(csv.DictReader((version / "metrics.csv").open()))
    print(row)
    captions = [json.loads(line) for line in (version / "captions.jsonl").read_text().splitlines()]
    assert len(captions) == QUESTIONS * settings["model"]["rollout"]["init_args"]["group_size"]
    print(row, list(version.rglob("*")), len(reasoner.chats) - before)
