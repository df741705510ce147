"""Rows as people have them: odd characters, ids that occur twice, blank columns beside filled ones, long lines."""

from __future__ import annotations

import json
import logging

import pyarrow
import pytest
from pyarrow import parquet

from racro_pl.commands import score
from racro_pl.commands.data_check import run_check
from racro_pl.data import JsonlReader, ReadResult, ViRL39KReader
from racro_pl.data.benchmarks import find_benchmark
from racro_pl.data.benchmarks.loading import BenchmarkSettings, load_benchmarks
from racro_pl.data.benchmarks.sources.rows import read_json_rows
from racro_pl.data.datamodule import RacroDataModule
from racro_pl.data.readers import lines
from racro_pl.data.readers.base import Drops
from racro_pl.data.readers.ids import UniqueIds
from racro_pl.data.readers.lines import json_lines, parse_json
from racro_pl.text.cleaning import MAX_DEPTH, clean, clean_text
from racro_pl.types import RacroError
from tests.unit.data.conftest import row

HALF, BROKEN = "\ud83d", "\N{REPLACEMENT CHARACTER}"

# ------------------------------------------------------------------ odd characters


@pytest.mark.parametrize(
    ("odd", "clean_one"),
    [
        (f"red {HALF}", f"red {BROKEN}"),
        ("re\0d", "red"),
        ("\ufeffred", "red"),
        # A whole emoji, written as two escapes, is one character and no fault.
        (json.loads(r'"red \ud83d\ude00"'), "red \N{GRINNING FACE}"),
        ("rød", "rød"),
    ],
)
def test_odd_characters_are_repaired(odd, clean_one):
    assert clean_text(odd) == clean_one
    assert clean({odd: [odd, 1, None, {"x": odd}]}) == {clean_one: [clean_one, 1, None, {"x": clean_one}]}
    clean_one.encode()


def test_what_is_clean_is_the_very_same_object():
    value = {"a": ["b", {"c": "d"}]}
    assert clean(value) is value


@pytest.mark.parametrize("column", ["question", "id", "category", "note"])
@pytest.mark.parametrize("odd", [HALF, "\0", "\ufeff"])
def test_a_row_with_odd_characters_is_repaired_and_named(write_jsonl, caplog, column, odd):
    text = {"question": "How many?", "id": "a"}.get(column, "x")
    with caplog.at_level(logging.WARNING):
        path = write_jsonl([row(**{column: text + odd}), row(id="b")])
        result = JsonlReader(path).read("train")
    assert len(result.questions) == 2
    assert not result.dropped
    for question in result.questions:
        json.dumps([question.id, question.text, question.category, question.metadata], ensure_ascii=False).encode()
    assert caplog.messages == ["1 rows repaired (half characters, NUL or byte-order marks): data.jsonl:1"]


def test_an_answer_with_half_a_character_costs_its_row(write_jsonl):
    # Nobody knows what the answer was; NUL and byte-order marks carry nothing.
    rows = [row(answer=f"red {HALF}"), row(id="b", answer="\ufeff3\0")]
    result = JsonlReader(write_jsonl(rows)).read("train")
    assert [question.answer for question in result.questions] == ["3"]
    assert result.dropped == {"answer with a broken character": 1}


def test_a_number_beyond_all_floats_is_a_text_like_any_other(write_jsonl):
    (question,) = JsonlReader(write_jsonl([row(answer=10**400)])).read("train").questions
    assert question.answer == str(10**400)


def test_an_image_with_a_name_that_no_system_takes_costs_its_row(write_jsonl):
    result = JsonlReader(write_jsonl([row(), row(id="b", image="a" * 300)])).read("train")
    assert [question.id for question in result.questions] == ["a"]
    assert result.dropped == {"image path is not a path": 1}


def test_odd_characters_in_options_written_as_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"id": "1", "question": "Q?", "options": r"['\ud83d', 'b']", "answer": "B"}))
    [question] = find_benchmark("mathvision").read(str(path), images=False).questions
    assert question.choices == (BROKEN, "b")


def test_rows_of_json_files_are_repaired(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({f"1{HALF}": {"question": "Q\0?"}}))
    drops = Drops()
    [found] = read_json_rows(path, drops, images=False)
    assert found.text("row key", "question") == f"1{BROKEN}"
    assert found.text("question") == "Q?"
    assert len(drops.repaired) == 1


def virl39k(folder, questions, qids):
    count = len(questions)
    (folder / "set/images").mkdir(parents=True)
    (folder / "set/images/0.png").write_bytes((folder / "images/0.png").read_bytes())
    columns = {
        "question": questions, "answer": ["\\boxed{1}"] * count, "PassRate_32BTrained": [0.5] * count,
        "PassRate_7BBase": [0.5] * count, "category": ["c"] * count, "source": ["s"] * count, "qid": qids,
        "image": [["images/0.png"]] * count,
    }  # fmt: skip
    parquet.write_table(pyarrow.table(columns), folder / "set/39Krelease.parquet")
    return ViRL39KReader(str(folder / "set"), validation_share=0.0)


def not_utf8(texts):
    """An arrow array of texts that holds whatever bytes are given."""
    return pyarrow.array(texts, pyarrow.binary()).view(pyarrow.string())


def test_parquet_texts_that_are_no_utf8_cost_their_row_alone(folder):
    result = virl39k(folder, not_utf8([b"good", b"bad \xff", b"o\0dd"]), ["1", "2", "3"]).read("train")
    assert [question.text for question in result.questions] == ["<image>good", "<image>odd"]
    assert result.dropped == {"not UTF-8": 1}


def test_predictions_with_odd_characters_are_scored(tmp_path, capsys):
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"id": f"1{HALF}", "question": "Q?", "options": [], "answer": "60"}))
    predictions = tmp_path / "answers.jsonl"
    predictions.write_text(json.dumps({"id": f"1{HALF}", "response": f"{HALF} it is \\boxed{{60}}"}))
    output = tmp_path / "out.jsonl"
    given = ["--questions", str(questions), "--predictions", str(predictions), "--output", str(output)]
    score.main(["mathvision", *given])
    assert json.loads(output.read_text()) == {"id": f"1{BROKEN}", "extracted": "60", "correct": True}


# ------------------------------------------------------------------ ids that occur twice

TWO = [row(id="x"), row(id="y"), row(id="x", answer="4")]


def commands(path):
    """Everything that reads questions, on one file."""
    predictions = path.replace("data.jsonl", "predictions.jsonl")
    with open(predictions, "w") as file:
        file.write(json.dumps({"id": "x", "response": "3"}))
    return {
        "fit": lambda: JsonlReader(path).read("train"),
        "data check": lambda: run_check(find_benchmark("own"), path, None, None),
        "test": lambda: load_benchmarks([BenchmarkSettings("own", path)]),
        "score": lambda: score.main(["own", "--questions", path, "--predictions", predictions]),
        "score mathvision": lambda: score.main(["mathvision", "--questions", path, "--predictions", predictions]),
    }


@pytest.mark.parametrize("command", ["fit", "data check", "test", "score", "score mathvision"])
def test_two_rows_with_one_id_are_an_error_that_names_both(write_jsonl, command):
    rows = [each | {"options": []} for each in TWO]
    with pytest.raises(
        RacroError, match=r"data\.jsonl:1 and data\.jsonl:3 both have the id 'x', and differ: give every"
    ):
        commands(write_jsonl(rows))[command]()


@pytest.mark.parametrize("name", ["own", "mathvision"])
def test_the_same_row_again_is_left_out_and_counted(write_jsonl, caplog, name):
    path = write_jsonl([row(id="x", options=[]), row(id="x", options=[])])
    result = find_benchmark(name).read(path)
    assert (len(result.questions), result.dropped) == (1, {"same row again": 1})
    assert "data.jsonl:2 left out: same row again: id 'x' with the same content at data.jsonl:1" in caplog.text


def test_ids_of_parquet_rows(folder):
    with pytest.raises(RacroError, match=r"39Krelease.parquet row 0 and 39Krelease.parquet row 2 both have the id '1'"):
        virl39k(folder, ["a", "b", "c"], ["1", "2", "1"]).read("train")


def test_predictions_with_one_id(tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"id": "1", "question": "Q?", "options": [], "answer": "60"}))
    predictions = tmp_path / "answers.jsonl"
    given = ["mathvision", "--questions", str(questions), "--predictions", str(predictions)]
    first = {"id": "1", "response": "60"}
    predictions.write_text("\n".join(json.dumps(each) for each in (first, first)))
    assert score.main(given) == 0
    predictions.write_text("\n".join(json.dumps(each) for each in (first, first, first | {"response": "61"})))
    with pytest.raises(RacroError, match=r"answers.jsonl:1 and answers.jsonl:3 both have the id '1'"):
        score.main(given)


def test_a_line_that_is_named_like_an_id(write_jsonl):
    unnamed = row()
    del unnamed["id"]
    with pytest.raises(RacroError, match="data.jsonl:1 and data.jsonl:2 both have the id 'data-2'"):
        JsonlReader(write_jsonl([row(id="data-2"), unnamed | {"answer": "4"}])).read("train")


def test_a_readers_own_doubles_are_refused(write_jsonl):
    class Careless(JsonlReader):
        def read(self, split):
            return ReadResult(super().read(split).questions * 2)

    data = RacroDataModule(Careless(write_jsonl([row(id="x"), row(id="y")])), questions_per_step=1)
    with pytest.raises(RacroError, match="data: train: question 1 and question 3 both have the id 'x'"):
        data.load("train")


def test_more_doubles_are_counted():
    ids = UniqueIds()
    for place, content in enumerate("abc"):
        ids.add("x", f"f:{place}", content)
    with pytest.raises(RacroError, match=r"f:0 and f:1 both .* \(1 more such rows\)"):
        ids.check()


# ------------------------------------------------------------------ blank columns


@pytest.mark.parametrize("blank", ["", "  ", None, [], [""], [None], {}, float("nan")])
def test_a_blank_column_does_not_hide_another(write_jsonl, folder, blank):
    given = row(image=blank, images=["images/1.png"], options=blank, choices=["3", "4"], category=blank, subject="s")
    given |= {"id": blank if not isinstance(blank, float) else "", "qid": "7"}
    [question] = JsonlReader(write_jsonl([given])).read("train").questions
    assert [ref.path for ref in question.images] == [folder / "images/1.png"]
    assert (question.id, question.category, question.choices) == ("7", "s", ("3", "4"))
    [found] = read_json_rows(folder / "data.jsonl", Drops())
    assert [ref.path for ref in found.images] == [folder / "images/1.png"]


def test_a_list_written_as_text_names_several_images(write_jsonl, folder):
    path = write_jsonl([row(image="['images/0.png', 'images/1.png']"), row(id="b", image="[images/0.png")])
    result = JsonlReader(path).read("train")
    assert [ref.path for ref in result.questions[0].images] == [folder / "images/0.png", folder / "images/1.png"]
    assert result.dropped == {"image file not found": 1}


# ------------------------------------------------------------------ lines that cost more than they weigh


def test_a_line_of_a_million_values_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    parsed = []
    monkeypatch.setattr(lines.json, "loads", lambda text: parsed.append(text))
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": [' + b"[]," * 1_000_000 + b"[]]}\n")
    [found] = json_lines(path, 16_000_000)
    assert "more than 1000000 values" in str(found.row)
    assert not parsed


def test_brackets_and_commas_in_texts_are_no_values():
    assert parse_json(json.dumps({"a": '[{,"\\' * 500_000}).encode())["a"].startswith("[{,")


# Quadratic, these would take hours.
@pytest.mark.parametrize(
    "hostile", [b'"' + b'\\"' * 4_000_000, b'"' * 3_000_001, b"\\" * 3_000_000, b'"a\\\n' * 2_000_000]
)
def test_values_are_counted_in_linear_time(hostile):
    with pytest.raises(ValueError, match=r"."):
        parse_json(b"{" * 5 + hostile)


def test_nesting_has_a_limit(write_jsonl):
    deep = json.loads("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    result = JsonlReader(write_jsonl([row(note=deep), row(id="b", note=deep[0])])).read("train")
    assert [question.id for question in result.questions] == ["b"]
    assert result.dropped == {"not a JSON object": 1}
