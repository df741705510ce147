"""Rows, paths and names that are wrong: left out and counted, or refused with what was expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from racro_pl.data.benchmarks import BENCHMARKS, find_benchmark
from racro_pl.types import RacroError
from tests.unit.evaluation.benchmark_files import write_json


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("mathvision", {"question": "<image>"}, "no question"),
        ("mathvision", {"answer": ""}, "no answer"),
        ("mathvision", {"options": ["1", "2"], "answer": "E"}, "answer names no option"),
        ("mathvision", {"options": "__import__('os')"}, "list cannot be read"),
        ("mathvision", {"options": "[" * 30_000}, "list too long"),
        ("mathvision", {"options": "7"}, "not a list"),
        ("mathvision", {"id": "", "index": ""}, "no id"),
        ("mathvision", {"id": "good"}, "same row again"),
        ("dynamath", {"answer_type": "essay"}, "unknown answer type"),
        ("dynamath", {"qid": "-1"}, "no number of the seed question"),
        ("dynamath", {"varid": "one"}, "no number of the variant"),
        ("logicvista", {"answer": "the third"}, "answer is neither a letter nor letters"),
        ("wemath", {"key": "4steps_1"}, "unknown part"),
        ("wemath", {"option": "3 or 4"}, "options cannot be read"),
        ("mathverse", {"question_type": "essay"}, "unknown question type"),
        ("mathvista", {"question_type": "essay"}, "unknown question type"),
    ],
)
def test_a_bad_row_is_left_out_and_counted(tmp_path: Path, name: str, changes: dict[str, Any], reason: str) -> None:
    good: dict[str, Any] = {"id": "good", "index": "1", "question": "Q?", "answer": "A"}
    good |= {
        "mathvision": {"options": []},
        "mathvista": {"question_type": "free_form", "answer_type": "text"},
        "mathverse": {"question_type": "multi-choice"},
        "wemath": {"ID": "1", "key": "2steps_1", "option": "A. x; B. y"},
        "dynamath": {"answer_type": "text", "qid": "0", "varid": "1"},
        "logicvista": {},
    }[name]
    path = write_json(tmp_path / "a.jsonl", [good, {**good, "id": "bad", "key": "2steps_2", "varid": "2", **changes}])
    result = find_benchmark(name).read(str(path), images=False)
    assert len(result.questions) == 1
    assert dict(result.dropped) == {reason: 1}


@pytest.mark.parametrize("image", ["/etc/hostname", "../secret.png", "a/../../secret.png", "\\\\host\\a.png", 7, None])
def test_images_stay_below_the_file(tmp_path: Path, image: Any) -> None:
    row = {"id": "1", "question": "Q?", "options": [], "answer": "1", "image": "ok.png"}
    path = write_json(tmp_path / "a.jsonl", [row, {**row, "id": "2", "image": image}], ["ok.png"])
    result = find_benchmark("mathvision").read(str(path))
    assert [question.id for question in result.questions] == ["1"]
    assert sum(result.dropped.values()) == 1


def test_lines_that_are_no_rows_are_counted(tmp_path: Path) -> None:
    row = '{"id": "1", "question": "Q?", "options": [], "answer": "1"}\n'
    path = tmp_path / "a.jsonl"
    path.write_text(row + "not json\n[1]\n\n" + "[" * 100_000 + "\n" + "x" * 16_000_001 + "\n", encoding="utf-8")
    result = find_benchmark("mathvision").read(str(path), images=False)
    assert len(result.questions) == 1
    assert dict(result.dropped) == {"not a JSON object": 3, "line too long": 1}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "no.tsv", r"no\.tsv is not there"),
        (lambda folder: write_json(folder / "a.json", 7), "holds no rows"),
        (lambda folder: write_json(folder / "a.json", []), "no usable row for MathVision"),
        (lambda folder: write_json(folder / "a.jsonl", [{"id": "1", "question": "Q?"}]), "lacks the column options or"),
        (lambda folder: write_json(folder / "a.txt", []), "unknown kind of file"),
        (lambda folder: folder, "holds no layout of MathVision that is known"),
    ],
)
def test_a_path_that_holds_nothing_usable(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(RacroError, match=message):
        find_benchmark("mathvision").read(str(make(tmp_path)), images=False)


def test_names_are_found_in_any_spelling() -> None:
    for name, found in {
        "MathVista_MINI": "mathvista", "math-vision": "mathvision", "MathVision_MINI": "mathvision", "WEMATH": "wemath",
        "MathVerse_MINI_Vision_Only": "mathverse", "MathVerse_MINIVOnly": "mathverse", "We-Math": "wemath",
        "MMMU_DEV_VAL": "mmmu", "LogicVista": "logicvista", "figures": "figures",
    }.items():  # fmt: skip
        assert find_benchmark(name) is BENCHMARKS[found]
    with pytest.raises(RacroError, match="unknown benchmark 'mathvison'; did you mean 'mathvision'"):
        find_benchmark("mathvison")
    with pytest.raises(RacroError, match="unknown benchmark 'zzz'; known are mathvista, mathvision"):
        find_benchmark("zzz")


def test_unknown_splits_are_refused() -> None:
    with pytest.raises(RacroError, match="no split 'tetsmini'; did you mean 'testmini'"):
        find_benchmark("mathvision").read("x", "tetsmini")
