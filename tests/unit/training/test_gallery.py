"""Pictures and captions reach every configured logger, at their steps, and once each after a resume."""

from __future__ import annotations

import sys

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from racro_pl.callbacks import TrackioLogger
from racro_pl.training.callbacks.gallery import COLUMNS, CaptionGallery
from racro_pl.types import RacroError
from tests.fakes.loggers import ListLogger, MLFlowLogger, WandbLogger, fake_tables
from tests.unit.training.conftest import fit, make_module

KINDS = ["fixed/1", "fixed/2", "new/1"]


def test_a_gallery_goes_to_every_logger_at_its_steps_and_once_after_a_resume(
    folder, tmp_path, monkeypatch, capsys
) -> None:
    trackio = fake_tables("trackio")
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setitem(sys.modules, "wandb", fake_tables("wandb"))
    wandb, mlflow = WandbLogger(), MLFlowLogger()

    def run(steps: int, ckpt: str | None = None) -> None:
        board = TensorBoardLogger(tmp_path, "run", "version_0", purge_step=2 if ckpt else None)
        loggers = [board, TrackioLogger("colours", "mine"), wandb, mlflow, ListLogger()]
        gallery = CaptionGallery(every_n_steps=2, fixed=2, new=1)
        options = {"callbacks": [gallery], "logger": loggers, "log_every_n_steps": 1}
        trainer = fit(make_module(folder), tmp_path, steps=steps, ckpt=ckpt, **options)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")

    run(2)
    run(4, str(tmp_path / "2.ckpt"))

    events = EventAccumulator(str(tmp_path / "run" / "version_0"), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    assert sorted(events.Tags()["images"]) == [f"captions/{kind}" for kind in KINDS]
    assert [image.step for image in events.Images("captions/fixed/1")] == [1, 3]
    (text, _) = events.Tensors("captions/new/1/text_summary")
    assert "question: what is the color of figure" in text.tensor_proto.string_val[0].decode()

    first, second = trackio.runs
    assert [made.options["project"] for made in trackio.runs] == ["colours", "colours"]
    assert (first.name, first.finished, second.finished) == ("mine", True, True)
    for made, steps in ((first, [0, 1]), (second, [2, 3])):
        assert sorted({step for row, step in made.rows if "reward/mean" in row}) == steps, "a new run for every fit"
        assert [step for row, step in made.rows if "captions" in row] == steps[1:]
    tables = [row["captions"] for made in trackio.runs for row, _ in made.rows if "captions" in row]
    for table in (*tables, *(table for table, _ in wandb.tables)):
        assert table.columns == [*COLUMNS, "image"]
        assert [len(row) for row in table.data] == [len(COLUMNS) + 1] * 3
        assert {row[-1].picture.size for row in table.data} <= {(56, 56), (84, 56), (112, 56)}
    assert [step for _, step in wandb.tables] == [1, 3]

    pictures = [f"captions/{kind}/step_00000{step}.png" for step in (2, 4) for kind in KINDS]
    assert [name for name in mlflow.files if name.endswith(".png")] == pictures
    assert mlflow.files["captions/step_000004.md"].count("question: what is the color of figure") == 3
    assert capsys.readouterr().out.count("CaptionGallery: ListLogger gets no pictures") == 2, "once for each fit"


def test_a_missing_package_is_told_with_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr("racro_pl.training.callbacks.trackio_logger.find_spec", lambda name: None)
    with pytest.raises(RacroError, match=r"pip install 'racro-pl\[trackio\]'"):
        TrackioLogger()


def test_the_real_trackio_keeps_numbers_tables_and_pictures(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio = pytest.importorskip("trackio")
    from PIL import Image
    from trackio.sqlite_storage import SQLiteStorage

    logger = TrackioLogger("colours", "mine")
    logger.log_hyperparams({"rank": 8})
    logger.log_metrics({"reward/mean": 0.5}, step=3)
    picture = trackio.Image(Image.new("RGB", (8, 6)))
    logger.log_table("captions", ["caption", "image"], [["<b>red</b>", picture]], step=3)
    logger.finalize("success")
    numbers, table = SQLiteStorage.get_logs("colours", "mine")
    assert (numbers["reward/mean"], numbers["step"], table["step"]) == (0.5, 3, 3)
    (row,) = table["captions"]["_value"]
    assert row["caption"] == "<b>red</b>"
    with Image.open(tmp_path / "media" / row["image"]["file_path"]) as kept:
        assert kept.size == (8, 6)
    assert (logger.name, logger.version) == ("colours", "mine")
    assert trackio.Api().runs("colours")[0].config["rank"] == 8


@pytest.mark.parametrize("settings", [{"every_n_steps": 0}, {"fixed": 0, "new": 0}, {"fixed": -1}])
def test_bad_settings_of_a_gallery_are_refused(settings) -> None:
    with pytest.raises(ValueError, match="CaptionGallery"):
        CaptionGallery(**settings)
