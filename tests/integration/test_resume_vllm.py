"""A run with a real, greedy vLLM as reasoner resumes exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

from racro_pl.cli import run
from racro_pl.serving.vllm_process import VllmServer
from tests.fakes.runs import assert_same_run, captions

pytestmark = pytest.mark.vllm
ROOT = Path(__file__).parents[2]


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
