"""CSV and TSV files in the plain layout, and several data sets as one."""

from __future__ import annotations

import csv
from collections import Counter

import pytest

from racro_pl.data import FigureWorldReader, JsonlReader, MixedReader, TableReader
from racro_pl.types import RacroError
from tests.unit.data.conftest import row

ROWS = [
    row(id="a", level="2"),
    row(id="b", question="Which, then?\nLook", answer="B", options="['left', 'right']", image="['images/1.png']"),
    row(id="c", question='Say "two"', answer="4,5", answer_type="text", subject="art"),
]


def write_table(path, rows, delimiter=","):
    names = list(dict.fromkeys(name for each in rows for name in each))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


@pytest.mark.parametrize(("name", "delimiter"), [("data.csv", ","), ("data.tsv", "\t")])
def test_a_table_gives_the_questions_that_jsonl_gives(folder, write_jsonl, name, delimiter):
    found = TableReader(write_table(folder / name, ROWS, delimiter)).read("train")
    assert not found.dropped
    assert found.questions == JsonlReader(write_jsonl(ROWS)).read("train").questions
    assert found.questions[1].choices == ("left", "right")


def test_columns_are_mapped(folder):
    rows = [{"nr": 7, "frage": "What?", "bild": "images/0.png", "antwort": "3"}]
    columns = {"id": "nr", "question": "frage", "images": "bild", "answer": "antwort"}
    [question] = TableReader(write_table(folder / "a.csv", rows), columns=columns).read("train").questions
    assert (question.id, question.text, question.answer) == ("7", "<image>What?", "3")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"question;answer;image\nx;1;a.png\n", "no column 'question' for the question"),
        ("a.csv", b"question,answer\nx,1\n", "no column 'image' or 'images' for the images; it has question, answer"),
        ("a.csv", b"question,answer,image,answer\n", "several columns named 'answer'"),
        ("a.csv", b"question,answer,image\xff\n", "first line is not in UTF-8"),
        ("a.csv", b'question,answer,image\n"x,1,a.png\n', "no readable table: row 1"),
        ("a.csv", b"question,answer,image\n" + b"x" * 1_000_001 + b",1,a.png\n", "field larger than field limit"),
        ("a.csv", b"", "no column 'question'"),
        ("a.txt", b"question,answer,image\n", "named neither .csv nor .tsv"),
    ],
)
def test_what_is_no_table_is_told(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(RacroError, match=message):
        TableReader(str(folder / name)).read("train")


def test_bad_rows_are_left_out_and_counted(folder):
    lines = ["question,answer,image", "x,1,images/0.png", "x,1", "", "y,,images/0.png", "z,1,images/77.png",
             f"w,1,{'A' * 5000}", "v,1,\udcff"]  # fmt: skip
    (folder / "a.csv").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    result = TableReader(str(folder / "a.csv")).read("train")
    assert [question.id for question in result.questions] == ["a-1"]
    assert result.dropped == {
        "wrong number of cells": 1, "no answer": 1, "image file not found": 1, "image path is not a path": 1,
        "not UTF-8": 1,
    }  # fmt: skip


# ------------------------------------------------------------------ several as one


def shares(reader, split="train"):
    return Counter(question.id.split("/")[0] for question in reader.read(split).questions)


def test_a_mix_is_all_of_all_and_ids_say_where_from(folder):
    one, two = FigureWorldReader(train=6, validation=2), FigureWorldReader(train=4, validation=3)
    mix = MixedReader({"one": one, "two": two})
    assert shares(mix) == {"one": 6, "two": 4}
    assert shares(mix, "validation") == {"one": 2, "two": 3}
    table = TableReader(write_table(folder / "a.csv", ROWS))
    [first, *_] = MixedReader({"mine": table}).read("train").questions
    assert (first.id, first.category) == ("mine/a", "mine")


def test_a_mix_names_the_first_rows_that_each_data_set_left_out(folder):
    blank = [{**row, "answer": ""} for row in ROWS[:2]]
    readers = {name: TableReader(write_table(folder / f"{name}.csv", blank)) for name in ("a", "b")}
    assert MixedReader(readers).read("train").named == {"no answer": ["a.csv row 1", "a.csv row 2", "b.csv row 1"]}


def test_weights_say_the_shares_and_the_rest_is_counted():
    one, two = FigureWorldReader(train=100), FigureWorldReader(train=30)
    mix = MixedReader({"one": one, "two": two}, {"one": 2, "two": 1})
    assert shares(mix) == {"one": 60, "two": 30}
    assert mix.read("train").dropped == {"above the weight of one": 40}
    assert mix.read("train").questions == mix.read("train").questions
    # More rows change the choice by what is added alone.
    longer = MixedReader({"one": FigureWorldReader(train=110), "two": two}, {"one": 2, "two": 1})
    before, after = ({q.id for q in each.read("train").questions} for each in (mix, longer))
    assert len(before & after) >= 80


@pytest.mark.parametrize(
    ("names", "weights", "message"),
    [
        ([], None, "no readers"),
        (["a/b"], None, "without '/'"),
        (["a"], {"b": 1.0}, "weights has b; expected one for each of a"),
        (["a"], {"a": 0.0}, "numbers above 0"),
        (["a"], {"a": float("nan")}, "numbers above 0"),
    ],
)
def test_a_mix_that_cannot_be_is_told(names, weights, message):
    with pytest.raises(RacroError, match=message):
        MixedReader({name: FigureWorldReader(train=2) for name in names}, weights)


def test_an_empty_data_set_cannot_have_a_weight():
    readers = {"a": FigureWorldReader(train=2), "b": FigureWorldReader(train=0)}
    with pytest.raises(RacroError, match="b has no training questions, but a weight"):
        MixedReader(readers, {"a": 1.0, "b": 1.0}).read("train")
