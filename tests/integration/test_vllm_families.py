"""Captions of families beside Qwen's by a real vLLM: prompts and log-probs are the trainer's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.policy.loading import load_captioner
from racro_pl.rollout import RunInfo, VllmEngine
from racro_pl.rollout.vllm.server import ServerSettings, rollout_server
from tests.helpers.families import BUILDERS, save_small_family
from tests.helpers.tolerance import NATS
from tests.unit.policy.conftest import QUESTIONS

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]
KEY = "a key of this test"
IN_CI = ("internvl", "mistral3", "glm4v")
"""A server starts for more than half a minute: the others are for ``-m "vllm and slow"``."""
OTHERS = ("qwen2_vl", "smolvlm", "idefics3", "llava", "llava_next")


def save_servable(folder: Path, kind: str) -> Path:
    """A small model with heads of 32, below which vLLM's attention on a CPU fails, and rotary sections to match."""
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    config, _ = BUILDERS[kind](kind)
    rope = dict(config.text_config.rope_parameters or {})
    if "mrope_section" in rope:
        heads["rope_parameters"] = rope | {"mrope_section": [2 * size for size in rope["mrope_section"]]}
    save_small_family(folder, kind, **heads)
    if kind.startswith("llava"):
        use_published_names(folder)
    return folder


def use_published_names(folder: Path) -> None:
    """As published LLaVA weights name their tower and vLLM reads it; transformers saves it without ``vision_model``."""
    path = folder / "model.safetensors"
    weights = {name.replace("vision_tower.", "vision_tower.vision_model."): w for name, w in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", [*IN_CI, *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)])
def test_prompts_and_log_probs_are_the_trainers(vllm_python: Path, tmp_path, monkeypatch, kind):
    """Several pictures of several sizes, with limits that cut them otherwise than the folder's own would."""
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    folder = save_servable(tmp_path / "model", kind)
    policy = PolicySettings(
        path=str(folder), lora=LoraSettings(8, 16), dtype="float32", gradient_checkpointing=False, min_pixels=28 * 28,
        max_pixels=42 * 42,
    )  # fmt: skip
    captioner = load_captioner(policy, torch.device("cpu"))
    with torch.no_grad():  # a fresh adapter changes nothing
        for name, parameter in captioner.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(1))
    settings = ServerSettings(
        python=str(vllm_python), host="127.0.0.1", max_model_len=1024, extra_args=["--enforce-eager"],
        start_timeout_s=280,
    )  # fmt: skip
    questions = [(question, captioner.encode(question)) for question in QUESTIONS]
    with rollout_server(settings, RunInfo(policy, tmp_path / "server", "server", key=KEY)) as running:
        engine = VllmEngine(url=running.url, group_size=2, max_new_tokens=8)
        engine.open(RunInfo(policy, tmp_path / "run", "run"))
        rollouts = list(engine.sample(captioner, questions, 0))
        metrics = engine.metrics()
        engine.close()
    assert [len(rollout.texts) for rollout in rollouts] == [2] * len(QUESTIONS)
    assert metrics["canary_gap"] < NATS < metrics["canary_base_gap"]
    for rollout in rollouts:
        everyone = torch.zeros(2, dtype=torch.long)
        own = captioner.frozen_logprobs(
            [rollout.prompt], everyone, rollout.token_ids, rollout.mask, 1.0, reference=False
        )  # fmt: skip
        assert (own - rollout.sampler_logprobs).abs().max() < NATS
