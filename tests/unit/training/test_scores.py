"""Validation and test on benchmarks: their metrics, the checkpoint chosen by one of them, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LambdaCallback

from racro_pl import BenchmarkDataModule, RacroDataModule, RacroModule
from racro_pl.data import FigureWorldReader
from racro_pl.models import ObjectiveSettings, PolicySettings
from racro_pl.reward import FunctionReward, InProcessReasoner, Scorer
from racro_pl.rollout import TransformersEngine
from racro_pl.training.callbacks.learning_report import _as_json
from racro_pl.training.checkpointing.callback import RunCheckpoint
from racro_pl.training.metrics.accuracy import PipelineAccuracy, percent
from racro_pl.types import RacroError


def module(reward=None, **objective) -> RacroModule:
    reasoner = InProcessReasoner("embedded:figure-reasoner", temperature=0.0, max_new_tokens=8)
    return RacroModule(
        PolicySettings("embedded:figure-captioner", dtype="float32"),
        TransformersEngine(group_size=4, max_new_tokens=11),
        reward or Scorer(reasoner, cache="off"),
        ObjectiveSettings(learning_rate=2e-3, **objective),
    )


def trainer(folder: Path, **settings) -> Trainer:
    return Trainer(
        default_root_dir=folder, accelerator="cpu", enable_progress_bar=False, logger=False, num_sanity_val_steps=0,
        inference_mode=False, **settings,
    )  # fmt: skip


def figures(**settings) -> RacroDataModule:
    reader = FigureWorldReader(train=16, validation=4, test=0)
    return RacroDataModule(reader, questions_per_step=4, **settings)


@pytest.fixture
def own(tmp_path: Path) -> str:
    """Three questions about one picture, whose gold answer no caption leads to."""
    picture = FigureWorldReader(train=1, validation=0, test=0).read("train").questions[0].images[0]
    (tmp_path / "a.png").write_bytes(picture.data)
    rows = [{"id": str(n), "image": "a.png", "question": "what is it ?", "answer": "xyzzy"} for n in range(3)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(tmp_path / "mine.jsonl")


def test_a_fit_validates_on_benchmarks_and_keeps_the_best_by_one(tmp_path, own):
    best = RunCheckpoint(monitor="val/figures/accuracy_low")
    data = figures(validation=["figures", own], validation_limit=8)
    run = trainer(tmp_path, max_steps=1, val_check_interval=1, callbacks=[best])
    run.fit(module(), datamodule=data)
    found = {name: float(value) for name, value in run.callback_metrics.items() if name.startswith("val/")}
    assert (found["val/questions"], found["val/figures/questions"], found["val/own/questions"]) == (4, 8, 3)
    assert found["val/figures/accuracy_low"] <= found["val/figures/accuracy"] <= found["val/figures/accuracy_high"]
    assert found["val/own/accuracy"] == 0.0
    assert found["val/own/accuracy_high"] == pytest.approx(1 - 0.025 ** (1 / 3))  # none of three: Clopper-Pearson
    assert found["val/own/unanswered_share"] == 0.0
    assert 0.0 <= found["val/own/unextracted_share"] <= 1.0
    assert "val/accuracy" in found
    names = PipelineAccuracy(data.categories("validation"), data.audit_names()).names
    assert {f"val/{name}" for name in names} == {name for name in found if not name.startswith(("val/f", "val/o"))}
    assert best.best_model_score == pytest.approx(found["val/figures/accuracy_low"])


def test_a_test_scores_several_benchmarks_and_counts_no_answer_apart(tmp_path, own):
    captioner = module()
    captioner.scorer.responses = lambda captions, rewards: ((),)
    scores = trainer(tmp_path).test(captioner, datamodule=BenchmarkDataModule("figures", own, limit=2), verbose=False)
    merged = {name: value for each in scores for name, value in each.items()}
    assert merged["test/figures/unanswered_share"] == merged["test/own/unanswered_share"] == 1.0
    assert merged["test/own/questions"] == 0


def test_own_answers_are_scored_as_they_are(tmp_path, own):
    captioner = RacroModule(
        PolicySettings("embedded:figure-captioner", dtype="float32"),
        TransformersEngine(group_size=4, max_new_tokens=11),
        objective=ObjectiveSettings(name="qa"),
    )
    scores = trainer(tmp_path).test(captioner, datamodule=BenchmarkDataModule(own), verbose=False)
    assert (scores[0]["test/own/questions"], scores[0]["test/own/unanswered_share"]) == (3, 0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": ["mathvist"]}, "unknown benchmark 'mathvist'; did you mean 'mathvista'"),
        ({"validation": ["figures"], "validation_limit": 0}, "limit is 0"),
        ({"validation": ["dynamath=/nowhere.tsv"]}, "/nowhere.tsv is not there"),
        ({"validation": ["figures", "figures"]}, "there twice"),
        ({"validation": ["own"]}, "own questions need their file: own=PATH"),
    ],
)
def test_a_benchmark_that_cannot_be_read_stops_the_run_at_its_start(tmp_path, settings, message):
    captioner = module()
    with pytest.raises(RacroError, match=message) as raised:
        trainer(tmp_path, max_steps=1).fit(captioner, datamodule=figures(**settings))
    assert "\n" not in str(raised.value)
    assert not hasattr(captioner, "captioner")  # no model was loaded for it


def test_a_monitor_that_this_run_does_not_give_stops_it_at_its_start(tmp_path):
    data = figures(validation_limit=2, validation=["figures"])
    run = trainer(tmp_path, max_steps=1, callbacks=[RunCheckpoint(monitor="val/figures/acuracy")])
    with pytest.raises(RacroError, match="monitors 'val/figures/acuracy'.*val/figures/accuracy"):
        run.fit(module(), datamodule=data)


def test_what_gives_no_answers_is_not_scored_on_benchmarks(tmp_path):
    reward = FunctionReward(lambda question, captions: [0.0] * len(captions))
    with pytest.raises(RacroError, match="a FunctionReward gives no answers that a benchmark could score"):
        trainer(tmp_path).test(module(reward), datamodule=BenchmarkDataModule("figures", limit=2))


def test_a_benchmark_data_module_is_no_training_data(tmp_path):
    with pytest.raises(RacroError, match="a benchmark is no training data"):
        trainer(tmp_path, max_steps=1).fit(module(), datamodule=BenchmarkDataModule("figures"))
    with pytest.raises(RacroError, match="got 0 benchmarks"):
        BenchmarkDataModule()


def test_the_share_of_what_is_lacking_is_best_when_lowest():
    assert RunCheckpoint(monitor="val/figures/unextracted_share").mode == "min"
    assert RunCheckpoint().mode == "max"


def test_resuming_with_another_monitor_keeps_its_place_and_looks_for_the_best_again(tmp_path):
    before, after = RunCheckpoint(), RunCheckpoint(monitor="val/figures/unextracted_share")
    assert after.state_key == before.state_key
    for callback in (before, after):
        callback.dirpath = str(tmp_path)
    (tmp_path / "best.ckpt").touch()
    before.best_model_path, before.best_model_score = str(tmp_path / "best.ckpt"), torch.tensor(0.9)
    before._row = (3, {"loss": 1.0})
    state = before.state_dict()
    after.load_state_dict(dict(state))
    assert (after._row, after.best_model_path, after.best_model_score) == ((3, {"loss": 1.0}), "", None)
    same = RunCheckpoint()
    same.dirpath = str(tmp_path)
    same.load_state_dict(dict(state))
    assert same.best_model_path == str(tmp_path / "best.ckpt")


def test_the_accuracy_of_what_has_no_score_is_unknown_not_zero(tmp_path):
    """The judge of figures fails for one kind of question, then for all: the best checkpoint is of before."""
    whole = PipelineAccuracy(["count", "fill"], [])
    assert all(math.isnan(whole.compute()[name]) for name in ("accuracy", "accuracy/count", "accuracy/fill"))

    def no_counts(question, captions):
        lost = question.category == "count" or run.global_step > 1
        return [None if lost else 1.0 for _ in captions]

    best = RunCheckpoint(monitor="val/accuracy")
    run = trainer(tmp_path, max_steps=2, val_check_interval=1, callbacks=[best])
    seen = []
    run.callbacks.append(LambdaCallback(on_validation_end=lambda run, _: seen.append(dict(run.callback_metrics))))
    run.fit(module(FunctionReward(no_counts, max_unscored_share=1.0)), datamodule=figures())
    assert [float(metrics["val/unscored_share"]) for metrics in seen] == [0.25, 1.0]
    assert float(seen[0]["val/accuracy"]) == 1.0
    assert math.isnan(seen[0]["val/accuracy/count"])
    assert math.isnan(seen[1]["val/accuracy"])
    assert torch.load(best.best_model_path, weights_only=True)["global_step"] == 1


def test_a_figure_that_is_unknown_is_null_in_the_comparison():
    assert [percent(share) for share in (0.985, math.nan)] == ["98.5%", "–"]
    assert json.loads(_as_json({"accuracy": 0.5}, {"accuracy": math.nan})) == {
        "before": {"accuracy": 0.5}, "after": {"accuracy": None}
    }  # fmt: skip
