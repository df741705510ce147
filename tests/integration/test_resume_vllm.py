"""A run with a real, greedy vLLM as reasoner goes on exactly; and what it exports, vLLM serves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from racro_pl.cli import run
from racro_pl.evaluation.settings import CaptionerSettings
from racro_pl.evaluation.writers import open_writer
from racro_pl.figure_world.models import EMBEDDED
from racro_pl.figure_world.world import figure_questions
from racro_pl.serving.vllm_process import ServerSettings, VllmServer
from tests.fakes.runs import assert_same_run, captions

pytestmark = pytest.mark.vllm
ROOT = Path(__file__).parents[2]
TASKS = [(question, "caption") for question in figure_questions("test", 24)]


def fit(root: Path, steps: int, *more: str) -> Path:
    """The quickstart with few questions a step; its folder."""
    code = run([
        "fit", "--config", str(ROOT / "configs/quickstart.yaml"), "--runs", str(root),
        "--trainer.max_steps", str(steps),
        "--data.questions_per_step", "2", "--data.reader.init_args.train", "20", "--trainer.limit_val_batches", "0",
        "--data.reader.init_args.validation", "0", "--trainer.callbacks.init_args.questions", "1", *more,
    ])  # fmt: skip
    assert code == 0
    return root / "quickstart/version_0"


def test_with_a_greedy_vllm_two_steps_and_two_more_are_four(vllm_server: VllmServer, tmp_path):
    """Each run has a cache of its own: nothing is found in another's. One request at a time: vLLM rounds by batch."""

    def reasoner(cache: str) -> list[str]:
        arguments = "--model.reward.reasoner.init_args"
        return [
            "--model.reward.reasoner", "racro_pl.reward.HttpReasoner", f"{arguments}.url", vllm_server.url,
            f"{arguments}.temperature", "0.0", f"{arguments}.max_tokens", "16", f"{arguments}.concurrency", "1",
            "--model.reward.cache", "on", "--model.reward.cache_path", str(tmp_path / cache),
            "--model.rollout.init_args.group_size", "4", "--model.reward.max_answerless_steps", "null",
        ]  # fmt: skip

    straight = fit(tmp_path / "straight", 4, *reasoner("straight.sqlite"))
    fit(tmp_path / "two", 2, *reasoner("two.sqlite"))
    last = str(tmp_path / "two/quickstart/version_0/checkpoints/last.ckpt")
    again = fit(tmp_path / "two", 4, *reasoner("lost.sqlite"), "--ckpt_path", last)
    assert all(row["reasoner_answers"] for row in captions(straight))
    assert_same_run(again, straight, cache_lost=True)


def test_what_is_exported_vllm_serves(vllm_python: Path, tmp_path):
    """As a PEFT folder above the base, and merged: the greedy captions are those of the trainer."""
    folder = fit(
        tmp_path / "runs", 3, "--model.objective.learning_rate", "2e-2", "--model.objective.warmup_updates", "0"
    )
    checkpoint = str(folder / "checkpoints/last.ckpt")
    assert run(["export", checkpoint, str(tmp_path / "peft")]) == 0
    assert run(["export", checkpoint, str(tmp_path / "merged"), "--merge", "--dtype", "float32"]) == 0
    expected = written(str(folder / "adapter"), None)
    assert expected != written("embedded:figure-captioner", None)
    lora = ["--enable-lora", "--max-lora-rank", "16", "--lora-modules", f"trained={tmp_path / 'peft'}"]
    for model, name, more in ((EMBEDDED["figure-captioner"], "trained", lora), (tmp_path / "merged", "merged", [])):
        arguments = ["--enforce-eager", "--dtype", "float32", *more]
        start = ServerSettings(str(vllm_python), max_model_len=512, extra_args=arguments, start_timeout_s=280)
        served_name, log = "base" if more else name, tmp_path / f"{name}.log"
        server = VllmServer(model, start, served_model_name=served_name, log_path=log)
        with server:
            served = written(server.url, name)
        # Another engine rounds differently: a near-tie may turn, not more.
        assert sum(text == other for text, other in zip(served, expected, strict=True)) >= len(expected) - 1, name


def written(path: str, model: str | None) -> list[str | None]:
    """Greedy captions of a captioner, in process or served."""
    settings = CaptionerSettings(path, "captioner", model=model, max_new_tokens=24, batch_size=8)
    writer = open_writer(settings, torch.device("cpu"))
    writer.check()
    try:
        return [item.text for item in writer.write(TASKS)]
    finally:
        writer.close()
