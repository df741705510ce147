"""One row in several layouts is one question; the authors' own files; real samples."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from racro_pl.data.benchmarks import find_benchmark
from racro_pl.images import image_size, open_image
from racro_pl.types import Question, RacroError
from tests.unit.evaluation.benchmark_files import base64_png, write_json, write_tsv

SHARED = Path(os.environ.get("RACRO_SHARED_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data")


def bare(question: Question) -> Question:
    """A question without its images: files in one layout, bytes in another."""
    return replace(question, images=())


def same(name: str, first: Path, second: Path) -> list[Question]:
    """The questions of two layouts, which must agree in everything but how the images are kept."""
    benchmark = find_benchmark(name)
    one, two = benchmark.read(str(first)), benchmark.read(str(second))
    assert not one.dropped
    assert not two.dropped
    for left, right in zip(one.questions, two.questions, strict=True):
        assert bare(left) == bare(right)
        assert [image_size(ref) for ref in left.images] == [image_size(ref) for ref in right.images]
    return one.questions


# ------------------------------------------------------------------ the authors' layouts against VLMEvalKit's


def test_mathvision(tmp_path: Path) -> None:
    own = {"id": "8", "question": "Which? <image1>", "options": ["2", "3"], "answer": "B", "subject": "counting"}
    lone = {"id": "9", "question": "Sum?\n<image>", "options": [], "answer": "6", "subject": "algebra"}
    rows = [{**own, "image": "images/8.jpg"}, {**lone, "image": "images/9.jpg"}]
    # As in their repository: the table in `data`, the images beside that folder.
    path = write_json(tmp_path / "data" / "testmini.jsonl", rows, ["../images/8.jpg", "../images/9.jpg"])
    tsv = write_tsv(
        tmp_path / "v.tsv",
        [
            {
                "index": row["id"], "image": base64_png(40 + number), "question": row["question"],
                "choices": str(row["options"]), "answer": row["answer"], "category": row["subject"],
            }
            for number, row in enumerate(rows)
        ],
    )  # fmt: skip
    choice, free = same("mathvision", path, tsv)
    assert (choice.text, choice.answer_type) == ("Which? <image1>\nOptions:\nA. 2\nB. 3", "choice")
    # An <image> tag would set the image after the question.
    assert (free.text, free.answer, free.answer_type) == ("Sum?", "6", "math")
    assert same("mathvision", tmp_path, tsv)


def test_mathvista(tmp_path: Path) -> None:
    hint = (
        "Hint: Please answer the question requiring a floating-point number with one decimal place and provide the "
        "final value, e.g., 1.2, 1.3, 1.4, at the end.\n"
    )
    common = {"task": "math word problem"}
    own = {
        "1": {
            "pid": "1", "question": "How long?", "image": "images/1.jpg", "choices": None, "unit": None,
            "precision": 1, "answer": "1.2", "question_type": "free_form", "answer_type": "float",
            "metadata": {**common, "skills": ["arithmetic reasoning"]}, "query": f"{hint}Question: How long?",
        },
        "2": {
            "pid": "2", "question": "Which?", "image": "images/2.jpg", "choices": ["B", "A"], "unit": None,
            "precision": None, "answer": "B", "question_type": "multi_choice", "answer_type": "text",
            "metadata": {**common, "skills": []}, "query": "Hint: h\nQuestion: Which?\nChoices:\n(A) B\n(B) A",
        },
    }  # fmt: skip
    path = write_json(tmp_path / "data" / "testmini.json", own, ["images/1.jpg", "images/2.jpg"])
    tsv = write_tsv(
        tmp_path / "MathVista.tsv",
        [
            {
                "index": "1", "image": base64_png(40), "question": own["1"]["query"], "choices": "", "answer": "1.2",
                "answer_option": "", "question_type": "free_form", "answer_type": "float", **common,
                "skills": "['arithmetic reasoning']",
            },
            {
                "index": "2", "image": base64_png(41), "question": own["2"]["query"], "choices": "['B', 'A']",
                "answer": "B", "answer_option": "A", "question_type": "multi_choice", "answer_type": "text", **common,
                "skills": "[]",
            },
        ],
    )  # fmt: skip
    number, choice = same("mathvista", path, tsv)
    # VLMEvalKit's file has no precision: the hint tells it.
    assert number.metadata["precision"] == 1.0
    # The option that reads "B" is the first.
    assert (choice.answer, choice.choices, choice.metadata["answer_raw"]) == ("A", ("B", "A"), "B")


def test_mathverse(tmp_path: Path) -> None:
    own = {
        "sample_index": "7", "problem_index": "3", "problem_version": "Vision Only", "question": "",
        "image": "images/3.png", "answer": "2.5", "question_type": "free-form",
        "metadata": {"subject": "Functions", "subfield": "Property"}, "query_wo": "Provide the final value.",
        "question_for_eval": "What is it?",
    }  # fmt: skip
    other = {**own, "sample_index": "8", "problem_version": "Text Only"}
    path = write_json(tmp_path / "testmini.json", [other, own], ["images/3.png"])
    cells = {name: own[name] for name in ("problem_index", "problem_version", "answer", "question_type")}
    tsv = write_tsv(
        tmp_path / "v.tsv",
        [{
            "index": "0", "image": base64_png(), "question": "Provide the final value.", **cells,
            "question_for_eval": "What is it?", "metadata": str(own["metadata"]),
        }],
    )  # fmt: skip
    (question,) = same("mathverse", path, tsv)
    assert (question.id, question.answer_type) == ("3", "math")


def test_wemath(tmp_path: Path) -> None:
    own = {
        "ID": "2steps_1", "key": "2steps_multi", "question": "How wide?", "option": "A. 3; B. 4;", "answer": "A",
        "image_path": "a.png", "knowledge concept": "Angles", "question number": 1,
    }  # fmt: skip
    path = write_json(tmp_path / "testmini.json", [own], ["a.png"])
    cells = {"index": "0", "image": base64_png(), "A": "3", "B": "4", "C": "", "D": ""}
    tsv = write_tsv(
        tmp_path / "v.tsv", [{**cells, **{name: own[name] for name in ("ID", "key", "question", "answer")}}]
    )
    (question,) = same("wemath", path, tsv)
    assert question.text == (
        "Question: How wide?\nOptions:\nA. 3\nB. 4\nPlease select the correct answer from the options above."
    )
    assert (question.id, question.category) == ("2steps_1-2steps_multi", "S2")


def test_wemath_hint_and_chinese(tmp_path: Path) -> None:
    row = {"index": "0", "ID": "1", "key": "3steps_2", "question": "多宽？", "hint": "看图", "A": "3", "B": "4"}
    path = write_tsv(tmp_path / "v.tsv", [{**row, "answer": "B", "image": base64_png()}])
    (question,) = find_benchmark("wemath").read(str(path)).questions
    assert question.text == "Hint: 看图\nQuestion: 多宽？\nOptions:\nA. 3\nB. 4\n请直接回答选项字母。"


def test_mmmu_splits_of_one_file(tmp_path: Path) -> None:
    row = {"question": "Which of <image 1>?", "A": "x", "B": "<image 2>", "C": "", "answer": "B", "category": "Art"}
    rows = [
        {**row, "index": "1", "split": "dev", "image": base64_png()},
        {**row, "index": "2", "split": "validation", "image": str([base64_png(41), base64_png(42)])},
        {"index": "3", "split": "validation", "image": "1", "question": "How many?", "answer": "7"},
    ]
    path = str(write_tsv(tmp_path / "v.tsv", rows))
    two, free = find_benchmark("mmmu").read(path).questions
    assert [image_size(ref)[0] for ref in two.images] == [41, 42]
    assert (two.choices, two.answer, two.category) == (("x", "<image 2>"), "B", "Art")
    assert (free.text, free.answer, free.answer_type, free.metadata["answers"]) == (
        "Question: How many?", "7", "math", ("7",),
    )  # fmt: skip
    assert [image_size(ref)[0] for ref in free.images] == [40]
    assert [question.id for question in find_benchmark("mmmu").read(path, "dev").questions] == ["1"]


def test_dynamath(tmp_path: Path) -> None:
    rows = {}
    for variant in (2, 10, 1):
        rows[variant] = {
            "1": {
                "question": f"v{variant}?", "answer": "A", "image": "image/1.png", "answer_type": "multiple choice",
                "subject": "algebra", "level": "high school",
            }
        }  # fmt: skip
        write_json(tmp_path / f"variant{variant}" / "dataset.json", rows[variant], ["image/1.png"])
    tsv = write_tsv(
        tmp_path / "v.tsv",
        [
            {
                "index": str(place), "image": base64_png(), "question": f"v{variant}?", "answer": "A",
                "answer_type": "multiple choice", "subject": "algebra", "knowledge_level": "high school", "qid": "0",
                "varid": str(variant),
            }
            for place, variant in enumerate((1, 2, 10))
        ],
    )  # fmt: skip
    questions = same("dynamath", tmp_path, tsv)
    # VLMEvalKit counts seed questions from 0, the authors from 1.
    assert [question.id for question in questions] == ["1-1", "1-2", "1-10"]
    assert (questions[0].answer_type, questions[0].choices) == ("choice", ())


def test_logicvista(tmp_path: Path) -> None:
    own = {
        "v1_0": {"imagename": "v1_0.png", "question": "Which? (A) x (B) y", "answer": "B", "skill": ["spatial"]},
        "v1_1": {"imagename": "v1_1.png", "question": "Which two?", "answer": "a,C", "skill": ["spatial"]},
    }
    path = write_json(tmp_path / "dataset.json", own, ["images/v1_0.png", "images/v1_1.png"])
    one, two = find_benchmark("logicvista").read(str(path)).questions
    assert (one.id, one.answer, one.answer_type, one.choices) == ("v1_0", "B", "choice", ())
    assert (two.answer, two.answer_type) == ("A, C", "text")
    cells = {"index": "5", "image": base64_png(), "question": "Which? (A) x (B) y", "answer": "B", "skill": "spatial"}
    (other,) = find_benchmark("logicvista").read(str(write_tsv(tmp_path / "v.tsv", [cells]))).questions
    assert replace(bare(other), id="v1_0") == bare(one)


@pytest.mark.parametrize("name", ["figures", "reckoning"])
def test_figures_draw_themselves(name: str) -> None:
    questions = find_benchmark(name).read().questions
    assert len(questions) == 500
    assert {question.source for question in questions} == {name}
    assert {question.answer_type for question in questions} == {"text"}
    with pytest.raises(RacroError, match="got the path x, give none"):
        find_benchmark(name).read("x")
    with pytest.raises(RacroError, match="no split 'train'"):
        find_benchmark(name).read(split="train")


# ------------------------------------------------------------------ MathVista without the authors' query


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            {"question_type": "free_form", "answer_type": "float", "precision": 2, "answer": "1.25", "unit": "cm"},
            "Hint: Please answer the question requiring a floating-point number with two decimal places and provide "
            "the final value, e.g., 1.23, 1.34, 1.45, at the end.\nQuestion: Q? (Unit: cm)",
        ),
        (
            {"question_type": "multi_choice", "answer_type": "text", "answer": "y", "choices": ["x", "y"]},
            "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.\n"
            "Question: Q?\nChoices:\n(A) x\n(B) y",
        ),
        (
            {"question_type": "free_form", "answer_type": "list", "answer": "[1, 2]"},
            "Hint: Please answer the question requiring a Python list as an answer and provide the final list, "
            "e.g., [1, 2, 3], [1.2, 1.3, 1.4], at the end.\nQuestion: Q?",
        ),
        ({"question_type": "free_form", "answer_type": "text", "answer": "red"}, "Question: Q?"),
    ],
)
def test_mathvista_builds_the_text_from_its_parts(tmp_path: Path, row: dict[str, Any], text: str) -> None:
    path = write_json(tmp_path / "a.jsonl", [{"pid": "1", "question": "Q?", **row}])
    (question,) = find_benchmark("mathvista").read(str(path), images=False).questions
    assert question.text == text


# ------------------------------------------------------------------ real samples


@pytest.mark.parametrize(
    ("name", "folder", "tsv"),
    [
        ("mathvision", "mathvision", "MathVision_MINI.tsv"),
        ("dynamath", "dynamath", "DynaMath.tsv"),
        ("logicvista", "logicvista", "LogicVista.tsv"),
    ],
)
def test_real_samples_agree_in_both_layouts(name: str, folder: str, tsv: str) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no sample data at {SHARED}: set RACRO_SHARED_DATA")
    own, other = (find_benchmark(name).read(str(SHARED / path)) for path in (folder, f"tsv/{tsv}"))
    assert not own.dropped
    assert not other.dropped
    assert other.questions

    def look(question: Question) -> Any:
        return (
            question.text, question.choices, question.answer, question.answer_type, question.category,
            tuple(open_image(ref).tobytes() for ref in question.images),
        )  # fmt: skip

    by_id = {question.id: look(question) for question in own.questions}
    for question in other.questions:
        # LogicVista's ids differ: VLMEvalKit numbers the rows.
        assert by_id[question.id] == look(question) if name != "logicvista" else look(question) in by_id.values()
