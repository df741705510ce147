"""A captioner served by a real vLLM writes what it writes in process: the embedded one, and what a run exports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from racro_pl.cli import run
from racro_pl.evaluation.settings import CaptionerSettings
from racro_pl.evaluation.writers import open_writer
from racro_pl.figure_world.models import EMBEDDED
from racro_pl.figure_world.world import figure_questions
from racro_pl.serving.vllm_process import ServerSettings, VllmServer
from tests.integration.test_resume_vllm import fit

pytestmark = pytest.mark.vllm
QUESTIONS = figure_questions("test", 24)
CAPTIONS = [(question, "caption") for question in QUESTIONS]
BOTH = [(question, task) for question in QUESTIONS for task in ("caption", "tentative")]


@dataclass
class Exported:
    """What a run of three steps leaves: its own adapter, and two exports of its checkpoint."""

    adapter: Path
    peft: Path
    merged: Path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp("exported")
    folder = fit(root / "runs", 3, "--model.objective.learning_rate", "2e-2", "--model.objective.warmup_updates", "0")
    checkpoint = str(folder / "checkpoints/last.ckpt")
    assert run(["export", checkpoint, str(root / "peft")]) == 0
    assert run(["export", checkpoint, str(root / "merged"), "--merge", "--dtype", "float32"]) == 0
    return Exported(folder / "adapter", root / "peft", root / "merged")


def server_of(python: Path, model: Path, name: str, log: Path, *more: str) -> VllmServer:
    arguments = ["--enforce-eager", "--dtype", "float32", *more]
    start = ServerSettings(str(python), max_model_len=512, extra_args=arguments, start_timeout_s=280)
    return VllmServer(model, start, served_model_name=name, log_path=log)


@pytest.fixture(scope="module")
def server(vllm_python: Path, exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """The embedded captioner as ``base``, and with the exported adapter as ``trained``."""
    lora = ["--enable-lora", "--max-lora-rank", "16", "--lora-modules", f"trained={exported.peft}"]
    log = tmp_path_factory.mktemp("server") / "vllm.log"
    with server_of(vllm_python, EMBEDDED["figure-captioner"], "base", log, *lora) as running:
        yield running


def written(path: str, model: str | None, work: list) -> list[str | None]:
    """Greedy texts of a captioner, in process or served."""
    settings = CaptionerSettings(path, "captioner", model=model, max_new_tokens=24, batch_size=8)
    writer = open_writer(settings, torch.device("cpu"))
    writer.check()
    try:
        return [item.text for item in writer.write(work)]
    finally:
        writer.close()


def different(texts: list[str | None], others: list[str | None]) -> int:
    """How many; another engine rounds differently, so a near-tie may turn."""
    return sum(text != other for text, other in zip(texts, others, strict=True))


def test_served_and_in_process_captions_are_the_same(server: VllmServer):
    assert different(written(server.url, "base", BOTH), written("embedded:figure-captioner", None, BOTH)) <= 2


@pytest.fixture(scope="module")
def expected(exported: Exported) -> list[str | None]:
    """The trainer's captions, which are no longer those of the base."""
    texts = written(str(exported.adapter), None, CAPTIONS)
    assert texts != written("embedded:figure-captioner", None, CAPTIONS)
    return texts


def test_vllm_serves_an_exported_adapter(server: VllmServer, expected):
    assert different(written(server.url, "trained", CAPTIONS), expected) <= 1


def test_vllm_serves_a_merged_folder(vllm_python: Path, exported: Exported, expected, tmp_path):
    with server_of(vllm_python, exported.merged, "merged", tmp_path / "vllm.log") as running:
        assert different(written(running.url, "merged", CAPTIONS), expected) <= 1
