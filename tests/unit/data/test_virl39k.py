"""ViRL39K on a small parquet file with the released columns."""

from __future__ import annotations

import pyarrow
import pytest
from pyarrow import parquet

from racro_pl.data import ViRL39KReader
from racro_pl.types import RacroError

GOOD = {
    "question": "<image>How many?", "answer": "\\boxed{3}", "PassRate_32BTrained": 0.5, "PassRate_7BBase": -1.0,
    "category": "Spatial Reasoning", "source": "Processed", "qid": "Processed-1", "image": ["images/0.png"],
}  # fmt: skip


def write(folder, rows):
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "39Krelease.parquet")
    return ViRL39KReader(str(folder), validation_share=0.0)


def read_one(folder, **changes):
    result = write(folder, [GOOD | changes]).read("train")
    assert not result.dropped
    return result.questions[0]


def test_a_row_becomes_a_question(folder):
    question = read_one(folder)
    assert (question.id, question.source, question.category) == ("Processed-1", "ViRL39K", "Spatial Reasoning")
    assert (question.text, question.answer, question.answer_type) == ("<image>How many?", "3", "math")
    assert question.images[0].path == folder / "images/0.png"
    assert question.metadata == {
        "qid": "Processed-1", "source": "Processed", "PassRate_32BTrained": 0.5,
        # -1 in the file says that nobody measured it.
        "PassRate_7BBase": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("question", "images", "expected"),
    [
        ("How many?", 1, "<image>How many?"),
        ("See <image>: how many?", 1, "See <image>: how many?"),
        # The reference puts one tag here, and its processor then finds one place for three images.
        ("How many?", 3, "<image><image><image>How many?"),
        ("In <image>?", 3, "<image><image><image>In ?"),
    ],
)
def test_every_image_has_its_tag(folder, question, images, expected):
    paths = [f"images/{index}.png" for index in range(images)]
    assert read_one(folder, question=question, image=paths).text == expected


@pytest.mark.parametrize(
    ("question", "answer", "kind", "gold"),
    [
        ("<image>Which?\nChoices:\n(A) 1\n(B) 2", "\\boxed{B}", "choice", "B"),
        ("<image>Which?\nA: 1\nB: 2", "\\boxed{B}", "choice", "B"),
        ("<image>Which point?", "\\boxed{B}", "math", "B"),
        ("<image>What colour?", "\\boxed{red}", "math", "red"),
        ("<image>What?", "\\boxed{\\frac{1}{2}}", "math", "\\frac{1}{2}"),
    ],
)
def test_answers_are_unboxed_and_typed(folder, question, answer, kind, gold):
    result = read_one(folder, question=question, answer=answer)
    assert (result.answer_type, result.answer) == (kind, gold)


def test_rows_without_images_by_design_are_left_out_and_bad_ones_counted(folder):
    rows = [
        GOOD,
        GOOD | {"qid": "2", "source": "DeepScaleR", "image": []},
        GOOD | {"qid": "3", "answer": None},
        GOOD | {"qid": "4", "image": ["images/none.png"]},
        GOOD | {"qid": "5", "image": None},
        GOOD | {"qid": "6", "image": ["../secret.png"]},
        GOOD | {"qid": "7", "question": None},
        # A pass rate is no reason to leave a row out.
        GOOD | {"qid": "8", "PassRate_32BTrained": 0.0},
    ]
    result = write(folder, rows).read("train")
    assert [question.id for question in result.questions] == ["Processed-1", "8"]
    assert result.dropped == {
        "no answer": 1, "image file not found": 1, "no image": 1, "no question": 1,
        "image path leads out of the image folder": 1,
    }  # fmt: skip


def test_validation_questions_are_held_out_by_id(folder):
    write(folder, [GOOD | {"qid": str(index)} for index in range(3000)])
    reader = ViRL39KReader(str(folder), validation_share=0.1)
    train, validation = (
        {question.id for question in reader.read(split).questions} for split in ("train", "validation")
    )
    assert not train & validation
    assert len(train | validation) == 3000
    # 300 expected, a standard deviation of 16.
    assert 250 <= len(validation) <= 350
    assert reader.read("test").questions == []


def test_what_is_not_the_data_set_is_one_clear_error(folder):
    reader = ViRL39KReader(str(folder))
    with pytest.raises(RacroError, match=r"39Krelease\.parquet not found; root must be the folder"):
        reader.read("train")
    (folder / "39Krelease.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(RacroError, match="39Krelease.parquet cannot be read: Parquet magic bytes not found"):
        reader.read("train")
    parquet.write_table(pyarrow.table({"question": ["x"]}), folder / "39Krelease.parquet")
    with pytest.raises(RacroError, match="has no column PassRate_32BTrained, PassRate_7BBase, answer"):
        reader.read("train")
    (folder / "images").rename(folder / "pictures")
    with pytest.raises(RacroError, match="images not found; unpack the data set's images there"):
        reader.read("train")


@pytest.mark.parametrize("column", ["question", "category"])
def test_a_column_of_bytes_is_no_text(folder, column):
    result = write(folder, [GOOD | {column: b"<image>How many?"}]).read("train")
    assert result.dropped == {f"{column} is no text": 1}
