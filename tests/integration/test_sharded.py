"""Weights spread over two processes: what is on which, and checkpoints that one process can read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.fakes.models import save_small_model
from tests.fakes.sharded_fit import fit_twice
from tests.unit.training.conftest import fit, make_module


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("policy"), "qwen2_5_vl")


@pytest.fixture(scope="module")
def out(two_ranks, model, tmp_path_factory) -> Path:
    """Full fine-tuning, sampled in process, two steps; then again from the checkpoint of the first."""
    folder = tmp_path_factory.mktemp("out")
    two_ranks(fit_twice, model, folder)
    return folder


@pytest.fixture(scope="module")
def found(out) -> list[dict]:
    return [torch.load(out / f"found.{rank}.pt", weights_only=True) for rank in range(2)]


def test_a_rank_holds_its_share(found):
    """Half of the language model and of its reference; the tower whole."""
    for rank in found:
        assert rank["own"] == pytest.approx(rank["tower"] + (rank["all"] - rank["tower"]) / 2, rel=0.01)


def test_a_resumed_run_ends_with_the_same_weights(found):
    straight, resumed = found[0]["weights"]
    for name, weight in straight.items():
        assert torch.equal(weight, resumed[name]), name


def test_only_rank_0_puts_whole_tensors_together(found):
    assert all(weight is None for weights in found[1]["weights"] for weight in weights.values())


def test_the_result_is_an_ordinary_model_folder(out, found):
    saved = AutoModelForImageTextToText.from_pretrained(out / "model", dtype=torch.float32).state_dict()
    for name, weight in found[0]["weights"][0].items():
        assert torch.equal(weight, saved[name.removeprefix("captioner.model.")]), name


def test_one_process_goes_on_from_a_sharded_checkpoint(model, out, tmp_path):
    module = make_module(model, policy={"lora": None}, learning_rate=1e-3, updates_per_rollout=2)
    trainer = fit(module, tmp_path, steps=2, ckpt=str(out / "half.ckpt"))
    assert trainer.global_step == 2
    assert module.updates_done == 4
    steps = {int(state["step"]) for state in trainer.optimizers[0].state.values()}
    assert steps == {4}
