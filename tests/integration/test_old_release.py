"""What the release before has written keeps working: its configurations, checkpoints, run folders and adapters."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from racro_pl import callbacks, rollout
from racro_pl.cli import run
from racro_pl.commands import moved
from racro_pl.commands.guard import guard
from racro_pl.evaluation.captioner_source import CaptionerSettings, find_policy
from racro_pl.figure_world.models import ASSETS, resolve_model

RUN = Path(__file__).parents[1] / "samples" / "run_0_1_0"
OLD_BASE = "/home/someone/site-packages/racro_pl/figures/assets/captioner"


@pytest.fixture
def old_run(tmp_path) -> Path:
    """A run of the release before, in a folder that may be written to."""
    folder = tmp_path / "runs" / "quickstart" / "version_0"
    shutil.copytree(RUN, folder)
    return folder


def test_a_run_resumes_from_its_own_configuration_and_checkpoint(old_run, tmp_path):
    checkpoint = old_run / "checkpoints" / "last.ckpt"
    code = run(
        ["fit", "--config", str(old_run / "config.yaml"), "--runs", str(tmp_path / "runs"), "--trainer.max_steps", "3",
         "--trainer.callbacks", "null", "--ckpt_path", str(checkpoint)]
    )  # fmt: skip
    assert code == 0
    steps = [line.split(",") for line in (old_run / "metrics.csv").read_text().splitlines()]
    column = steps[0].index("step")
    assert steps[-1][column] == "2"
    captions = [json.loads(line) for line in (old_run / "captions.jsonl").read_text().splitlines()]
    assert {record["step"] for record in captions[-16 * 8 :]} == {3}


def test_its_run_folder_and_its_adapter_are_captioners(old_run):
    for path in (old_run, old_run / "adapter"):
        policy = find_policy(CaptionerSettings(str(path)), on_gpu=False)
        assert policy.path == str(ASSETS / "captioner")
        assert policy.adapter == str(old_run / "adapter")


def test_an_adapter_whose_base_lay_in_the_old_package_folder(tmp_path):
    adapter = tmp_path / "adapter"
    shutil.copytree(RUN / "adapter", adapter)
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": OLD_BASE}))
    assert find_policy(CaptionerSettings(str(adapter)), on_gpu=False).path == str(ASSETS / "captioner")


def test_a_folder_that_is_still_there_is_what_it_says(tmp_path):
    folder = tmp_path / "racro_pl/figures/assets/captioner"
    folder.mkdir(parents=True)
    assert resolve_model(str(folder)) == str(folder)
    assert resolve_model("some/other/captioner") == "some/other/captioner"


@pytest.mark.parametrize("old", moved.MOVED)
def test_every_moved_module_is_at_its_new_place(old):
    __import__(moved.MOVED[old])
    with pytest.raises(ModuleNotFoundError):
        __import__(old)


def test_class_paths_of_the_release_before_work_with_one_warning(tmp_path, monkeypatch, caplog):
    old = {
        "racro_pl.training.watch.CaptionWatch": callbacks.CaptionWatch,
        "racro_pl.training.vllm_callback.VllmReasonerServer": callbacks.VllmReasonerServer,
        "racro_pl.training.preflight.Preflight": callbacks.Preflight,
        "racro_pl.loggers.TrackioLogger": callbacks.TrackioLogger,
        "racro_pl.rollout.vllm_engine.VllmEngine": rollout.VllmEngine,
    }
    for module in moved.MOVED:
        monkeypatch.delitem(sys.modules, module, raising=False)
    paths = list(old)
    config = tmp_path / "config.yaml"
    parts = [{"class_path": path} for path in paths]
    config.write_text(json.dumps({"trainer": {"callbacks": parts[:3], "logger": parts[3]}}))
    guard(["fit", "--config", str(config), "--model.rollout", paths[4], "--trainer.callbacks+", paths[0]])
    try:
        for path, today in old.items():
            module, _, name = path.rpartition(".")
            assert getattr(sys.modules[module], name) is today
        assert len(caplog.records) == len(old)
        assert "racro_pl.training.watch.CaptionWatch is now racro_pl.training.callbacks.caption_watch" in caplog.text
        assert "racro_pl.loggers.TrackioLogger is now racro_pl.callbacks.TrackioLogger" in caplog.text
    finally:
        for module in moved.MOVED:
            sys.modules.pop(module, None)
