"""A callback that a configuration names takes the place of the default one of its kind."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from racro_pl.commands import lightning
from racro_pl.training.callbacks.caption_watch import CaptionWatch
from racro_pl.training.callbacks.preflight import Preflight

QUICKSTART = Path(__file__).parents[3] / "configs/quickstart.yaml"


def callbacks_of(monkeypatch, tmp_path, *configured):
    config = yaml.safe_load(QUICKSTART.read_text())
    config["trainer"]["callbacks"] = list(configured)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    found = []
    monkeypatch.setattr(lightning.RacroCLI, "_run_subcommand", lambda cli, name: found.extend(cli.trainer.callbacks))
    monkeypatch.setattr(sys, "argv", ["racro-pl", "fit", "--config", str(file), "--runs", str(tmp_path / "runs")])
    lightning.main(sys.argv[1:])
    return found


def test_every_fit_is_watched_and_tried(monkeypatch, tmp_path):
    kinds = [type(callback) for callback in callbacks_of(monkeypatch, tmp_path)]
    assert kinds.count(CaptionWatch) == kinds.count(Preflight) == 1


def test_a_configured_callback_replaces_the_default(monkeypatch, tmp_path):
    place = "racro_pl.callbacks"
    found = callbacks_of(
        monkeypatch,
        tmp_path,
        {"class_path": f"{place}.CaptionWatch", "init_args": {"probe_every": 4}},
        {"class_path": f"{place}.Preflight", "init_args": {"on_cpu": True}},
    )
    assert [callback.probe_every for callback in found if isinstance(callback, CaptionWatch)] == [4]
    assert [callback.on_cpu for callback in found if isinstance(callback, Preflight)] == [True]
