"""Data sets of the hub: parquet and arrow with the images inside, cached or in a folder, and streamed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from racro_pl.data import HubReader
from racro_pl.data.readers import hub
from racro_pl.images import open_image
from racro_pl.types import ImageRef, RacroError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def png(folder) -> bytes:
    return (folder / "images/0.png").read_bytes()


def table(png: bytes, count: int = 3, first: int = 0, **columns) -> pa.Table:
    """Rows a, b, ... as `datasets` writes them."""
    rows = range(first, first + count)
    plain = {
        "id": [f"id{row}" for row in rows],
        "question": [f"How many at {row}?" for row in rows],
        "answer": [str(row) for row in rows],
        "image": pa.array([{"bytes": png, "path": None}] * count, IMAGE),
        "level": list(rows),
    }
    return pa.table({name: value for name, value in (plain | columns).items() if value is not None})


def write(path: Path, rows: pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)
    return path


def ids(reader: HubReader, split: str = "train") -> list[str]:
    return [question.id for question in reader.read(split).questions]


def test_a_file_with_images_inside_becomes_questions(folder, png):
    path = write(folder / "toys.parquet", table(png))
    first = HubReader(str(path)).read("train").questions[0]
    assert first.images == (ImageRef(data=png),)
    assert (first.id, first.text, first.answer, first.source) == ("id0", "<image>How many at 0?", "0", "toys")
    assert first.metadata == {"level": 0}
    assert open_image(first.images[0]).size == (10, 10)


def test_a_short_float_is_the_decimal_that_was_written(folder, png):
    path = write(folder / "toys.parquet", table(png, answer=pa.array([0.1, 2.0, 1e-7], pa.float32())))
    answers = [question.answer for question in HubReader(str(path)).read("train").questions]
    assert answers == ["0.1", "2.0", "1e-07"]
    pytest.importorskip("datasets")
    write(folder / "d/train.parquet", table(png, answer=pa.array([0.1, 2.0, 1e-7], pa.float32())))
    streamed = HubReader(str(folder / "d"), streaming=True).read("train").questions
    assert [question.answer for question in streamed] == answers


def test_what_is_said_of_bytes_that_are_no_image_is_the_same_on_every_run(folder):
    cells = pa.array([{"bytes": b"", "path": None}, {"bytes": b"no image", "path": None}], IMAGE)
    path = write(folder / "toys.parquet", table(b"", 2, image=cells))
    told = HubReader(str(path)).read("train").named["unusable image"]
    assert [each.split(": not a readable image")[0] for each in told] == [
        "question id0 image <0 bytes>", "question id1 image <8 bytes>",
    ]  # fmt: skip
    assert not [each for each in told if "0x" in each]


def test_parts_are_told_by_file_and_folder_names(folder, png):
    write(folder / "d/data/train-00000-of-00002.parquet", table(png, 2))
    write(folder / "d/data/train-00001-of-00002.parquet", table(png, 2, first=2))
    write(folder / "d/data/test-00000-of-00001.parquet", table(png, 1, first=9))
    write(folder / "e/train/0000.parquet", table(png, 1))
    write(folder / "e/testmini/0000.parquet", table(png, 1, first=5))
    assert ids(HubReader(str(folder / "d"))) == ["id0", "id1", "id2", "id3"]
    assert ids(HubReader(str(folder / "d"), test="test"), "test") == ["id9"]
    assert ids(HubReader(str(folder / "e"))) == ["id0"]
    assert ids(HubReader(str(folder / "e"), train=None, test="testmini"), "test") == ["id5"]
    assert ids(HubReader(str(folder / "e"), train=None, test="testmini"), "train") == []
    with pytest.raises(
        RacroError, match="no parquet or arrow files of a part 'validation'; it has train, test: name one"
    ):
        HubReader(str(folder / "d"), validation="validation").read("validation")


def test_one_of_several_data_sets_is_chosen_by_name(folder, png):
    write(folder / "d/easy/train.parquet", table(png, 1))
    write(folder / "d/hard/train.parquet", table(png, 1, first=7))
    assert ids(HubReader(str(folder / "d"), name="hard")) == ["id7"]
    with pytest.raises(RacroError, match="several data sets: easy, hard; set name"):
        HubReader(str(folder / "d")).read("train")
    with pytest.raises(RacroError, match="no folder 'odd'"):
        HubReader(str(folder / "d"), name="odd").read("train")


def test_shares_are_cut_by_id_and_a_file_is_one_part(folder, png):
    path = str(write(folder / "a.parquet", table(png, 60)))
    reader = HubReader(path, validation_share=0.3)
    train, held = ids(reader), ids(reader, "validation")
    assert sorted(train + held) == sorted(f"id{row}" for row in range(60))
    assert 5 <= len(held) <= 35
    with pytest.raises(RacroError, match="one file and so one part"):
        HubReader(path, validation="validation")
    with pytest.raises(RacroError, match="validation_share is cut from train"):
        HubReader(str(folder), validation="validation", validation_share=0.1)


def test_columns_are_mapped_and_missing_ones_named(folder, png):
    renamed = table(png, question=None, answer=None, problem=["What?"] * 3, solution=["1", "2", "3"])
    path = str(write(folder / "a.parquet", renamed))
    columns = {"question": "problem", "answer": "solution"}
    first = HubReader(path, columns=columns).read("train").questions[0]
    assert (first.text, first.answer, first.metadata) == ("<image>What?", "1", {"level": 0})
    with pytest.raises(RacroError, match="no column 'question' for the question; it has id, image, level, problem"):
        HubReader(path).read("train")
    stream = folder / "a.arrow"
    with pa.ipc.new_stream(str(stream), renamed.schema) as out:
        out.write_table(renamed)
    with pytest.raises(RacroError, match="no column 'question'") as missing:
        HubReader(str(stream)).read("train")
    assert str(missing.value).count("a.arrow") == 1
    with pytest.raises(RacroError, match="columns names picture; expected some of id, question, answer, images"):
        HubReader(path, columns={"picture": "image"})


def test_numbers_of_classes_become_their_names(folder, png):
    told = {"info": {"features": {"answer": {"_type": "ClassLabel", "names": ["red", "blue"]}}}}
    rows = table(png, answer=[0, 1, 5]).replace_schema_metadata({b"huggingface": json.dumps(told).encode()})
    result = HubReader(str(write(folder / "a.parquet", rows))).read("train")
    assert [question.answer for question in result.questions] == ["red", "blue"]
    assert result.dropped == {"no answer": 1}


def test_several_images_paths_and_bad_images(folder, png):
    images = [[{"bytes": png, "path": None}] * 2, [{"bytes": None, "path": "images/1.png"}], [],
              [{"bytes": b"no image", "path": None}], [{"bytes": None, "path": "../secret.png"}],
              [{"bytes": png, "path": None}] * 9]  # fmt: skip
    rows = table(png, 6, image=None, images=pa.array(images, pa.list_(IMAGE)))
    result = HubReader(str(write(folder / "a.parquet", rows))).read("train")
    assert [len(question.images) for question in result.questions] == [2, 1]
    assert result.questions[1].images[0].path == folder / "images/1.png"
    assert result.dropped == {
        "no image": 1, "unusable image": 1, "image path leads out of the image folder": 1, "more than 8 images": 1,
    }  # fmt: skip


def test_images_go_to_a_folder_and_too_many_are_not_held(folder, png, monkeypatch):
    path = str(write(folder / "a.parquet", table(png)))
    kept = HubReader(path, images_folder=str(folder / "kept")).read("train").questions
    assert {question.images[0].path.read_bytes() for question in kept} == {png}
    assert len({question.images[0].path for question in kept}) == 1
    monkeypatch.setattr(hub, "MAX_HELD_BYTES", 2 * len(png))
    with pytest.raises(RacroError, match="set images_folder"):
        HubReader(path).read("train")
    assert len(HubReader(path, max_rows=2).read("train").questions) == 2
    assert len(HubReader(path, images_folder=str(folder / "kept")).read("train").questions) == 3


def test_a_hub_id_is_read_from_the_local_cache_without_a_network(tmp_path, folder, png, monkeypatch):
    cache = tmp_path / "hub/datasets--ann--toys"
    write(cache / "snapshots/0123abc/data/train-00000-of-00001.parquet", table(png, 2))
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text("0123abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert ids(HubReader("ann/toys")) == ["id0", "id1"]
    with pytest.raises(RacroError, match="'ann/others' is no file or folder here"):
        HubReader("ann/others").read("train")
    with pytest.raises(RacroError, match="is not there; give a file, a folder, or a hub id"):
        HubReader("./nowhere/at/all").read("train")


def test_a_saved_folder_of_datasets_and_a_stream_give_the_same_questions(folder, png, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="extra hub")
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    rows = table(png, 5).to_pydict()
    data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    data.save_to_disk(str(folder / "saved"))
    (folder / "d").mkdir()
    data.to_parquet(str(folder / "d/train.parquet"))
    saved = HubReader(str(folder / "saved")).read("train").questions
    plain = HubReader(str(folder / "d")).read("train").questions
    stream = HubReader(str(folder / "d"), streaming=True).read("train").questions
    assert [(q.id, q.text, q.answer, q.images) for q in saved] == [(q.id, q.text, q.answer, q.images) for q in plain]
    assert stream == plain
    assert len(HubReader(str(folder / "d"), streaming=True, max_rows=2).read("train").questions) == 2
    data.rename_column("question", "q").to_parquet(str(folder / "d/train.parquet"))
    with pytest.raises(RacroError, match="no column 'question'"):
        HubReader(str(folder / "d"), streaming=True).read("train")


def test_streaming_without_the_package_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(RacroError, match=r"pip install 'racro-pl\[hub\]'"):
        HubReader("ann/toys", streaming=True).read("train")
