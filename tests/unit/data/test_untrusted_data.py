"""Rows from anywhere: they name images below their folder or none, and nothing of another file shows."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from racro_pl.data import JsonlReader, ViRL39KReader
from racro_pl.data.benchmarks.sources.rows import Row, file_images
from racro_pl.data.readers.base import MAX_IMAGES, RowError
from racro_pl.data.readers.fields import image_refs, place_images, plain_text, read_options, typed_answer
from racro_pl.text.captioner_prompt import IMAGE_TAG
from racro_pl.types import ImageRef
from tests.unit.data.conftest import row

# A list of one's own replaces the profile's.
SHARED_FOLDER = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
OUTSIDE = [
    "../outside.png", "images/../../outside.png", "/etc/hostname", "//server/share/x.png", "C:\\x.png", "C:x.png",
    "\\\\server\\x.png", "images\\..\\..\\outside.png", "a/\0b.png", "..", "./../x.png",
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_reader_follows_a_path_out_of_its_folder(tmp_path, path):
    for read in (
        lambda value: image_refs(value, tmp_path),
        lambda value: file_images({"image": value}, tmp_path / "f"),
    ):
        for value in (path, [path], ["good.png", path]):
            with pytest.raises(RowError, match="leads out of the image folder|is not a path"):
                read(value)


@given(st.lists(st.sampled_from(["..", ".", "/", "\\", "a", "images", "C:", "\0", "~", "..."]), max_size=8))
@settings(suppress_health_check=SHARED_FOLDER)
def test_every_path_that_is_taken_lies_below_its_folder(tmp_path, pieces):
    try:
        refs = image_refs("".join(pieces), tmp_path)
    except RowError:
        return
    for ref in refs:
        assert (ref.path.resolve()).is_relative_to(tmp_path.resolve())


def test_parquet_paths_stay_below_the_folder(tmp_path, caplog):
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "set/images").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "outside.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "set/images/good.png")
    columns = {
        "question": ["q"] * 3, "answer": ["\\boxed{1}"] * 3, "PassRate_32BTrained": [0.5] * 3,
        "PassRate_7BBase": [0.5] * 3, "category": ["c"] * 3, "source": ["s"] * 3, "qid": ["1", "2", "3"],
        "image": [["images/good.png"], ["../outside.png"], [str(tmp_path / "outside.png")]],
    }  # fmt: skip
    parquet.write_table(pyarrow.table(columns), tmp_path / "set/39Krelease.parquet")
    result = ViRL39KReader(str(tmp_path / "set"), validation_share=0.0).read("train")
    assert [question.id for question in result.questions] == ["1"]
    assert result.dropped == {"image path leads out of the image folder": 2}


def test_a_link_to_a_file_that_is_no_image_shows_nothing_of_it(folder, write_jsonl, caplog):
    # Links below the folder are the user's own (and hub caches are made of them): they are followed, to be decoded
    # as images and nothing else.
    (folder.parent / "secret.txt").write_text("root:x:0:0:SECRET")
    (folder / "images/link.png").symlink_to(folder.parent / "secret.txt")
    with caplog.at_level(logging.WARNING):
        result = JsonlReader(write_jsonl([row(image="images/link.png"), row(id="b")])).read("train")
    assert result.dropped == {"unusable image": 1}
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/stdin"])
def test_a_link_to_a_device_is_no_file(folder, write_jsonl, name):
    (folder / "images/link.png").symlink_to(name)
    result = JsonlReader(write_jsonl([row(image="images/link.png"), row(id="b")])).read("train")
    assert result.dropped == {"image file not found": 1}


def test_text_that_looks_like_a_format_string_or_code_stays_text(write_jsonl):
    text = "{0.__class__} %s __import__('os') {{x}} $(reboot)"
    read = JsonlReader(write_jsonl([row(question=text, answer="x")])).read("train").questions[0]
    assert read.text == IMAGE_TAG + text


# ------------------------------------------------------------------ properties

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
COLUMN = st.sampled_from(["id", "question", "answer", "image", "options", "answer_type", "category", "images", "other"])


@given(st.lists(st.dictionaries(COLUMN, JSON, max_size=9), min_size=1, max_size=4))
@settings(suppress_health_check=SHARED_FOLDER, max_examples=60)
def test_any_row_is_a_question_or_a_counted_drop(tmp_path, rows):
    file = tmp_path / "rows.jsonl"
    # One whole row: a file in which nobody has a question is refused.
    file.write_text("".join(json.dumps(each) + "\n" for each in [*rows, row(id="whole")]))
    result = JsonlReader(str(file)).read("train")
    assert len(result.questions) + result.dropped.total() == len(rows) + 1


@given(st.binary(max_size=300))
@settings(suppress_health_check=SHARED_FOLDER, max_examples=60)
def test_any_bytes_are_rows_or_counted_drops(tmp_path, data):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(data)
    result = JsonlReader(str(file)).read("train")
    lines = [line for line in data.split(b"\n") if line.strip()]
    assert len(result.questions) + result.dropped.total() == len(lines)


@given(st.text(alphabet="<image> 0123456789_x", max_size=60) | st.text(max_size=40), st.integers(1, MAX_IMAGES))
def test_tags_and_images_always_fit_afterwards(text, count):
    images = tuple(ImageRef(data=bytes([index])) for index in range(count))
    placed, ordered = place_images(text, images)
    assert placed.count(IMAGE_TAG) == count
    assert sorted(ref.data for ref in ordered) == sorted(ref.data for ref in images)
    assert place_images(placed, ordered)[0].count(IMAGE_TAG) == count


@given(JSON, st.text(max_size=30), st.lists(st.text(max_size=8), max_size=5), JSON)
def test_fields_are_read_or_refused_as_a_row(value, text, options, declared):
    for read in (
        lambda: read_options(value),
        lambda: typed_answer(value, text, options, declared),
        lambda: image_refs(value, Path("/nowhere")),
    ):
        with contextlib.suppress(RowError):
            read()
    assert plain_text(value) is None or plain_text(value) == plain_text(value).strip()


@given(st.text(max_size=200))
def test_a_list_in_a_cell_is_read_or_refused(text):
    with contextlib.suppress(RowError):
        assert type(Row("x:1", Path("f"), {"options": text}).items("options")) is list
