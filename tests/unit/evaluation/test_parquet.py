"""Hugging Face data sets: shards by split, images in structs, saved folders, the hub's cache, and the schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from racro_pl.data.benchmarks import find_benchmark
from racro_pl.data.benchmarks.sources.parquet import read_shards
from racro_pl.data.readers.base import Drops
from racro_pl.data.readers.hub_files import looks_like_hub_id
from racro_pl.images import image_size
from racro_pl.types import Question, RacroError
from tests.unit.evaluation.benchmark_files import png, struct, table_of, write_parquet

VISION: dict[str, Any] = {
    "id": "5", "question": "Which?\n<image1>", "options": ["2", "3"], "image": "images/5.jpg",
    "decoded_image": struct(50), "answer": "B", "solution": None, "level": 2, "subject": "counting",
}  # fmt: skip


def only(name: str, path: Path, split: str | None = None) -> Question:
    """The only question of a file or folder."""
    result = find_benchmark(name).read(str(path), split)
    assert not result.dropped
    (question,) = result.questions
    return question


def width(question: Question) -> list[int]:
    return [image_size(ref)[0] for ref in question.images]


def test_mathvision(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [{**VISION, "id": "4"}], ["decoded_image"])
    write_parquet(tmp_path / "data" / "testmini-00000-of-00001.parquet", [VISION], ["decoded_image"])
    question = only("mathvision", tmp_path, "testmini")
    assert (question.id, question.answer, question.choices) == ("5", "B", ("2", "3"))
    assert question.text == "Which?\n<image1>\nOptions:\nA. 2\nB. 3"
    assert width(question) == [50]
    # Without a split, the benchmark's first that the folder holds.
    assert only("mathvision", tmp_path).id == "4"


def test_mathvista(tmp_path: Path) -> None:
    row = {
        "pid": "9", "question": "How long?", "image": "images/9.jpg", "decoded_image": struct(51), "choices": None,
        "unit": "cm", "precision": 1.0, "answer": "1.2", "question_type": "free_form", "answer_type": "float",
        "metadata": {"task": "figure question answering", "skills": ["statistical reasoning"]},
        "query": "Hint: Please answer.\nQuestion: How long? (Unit: cm)",
    }  # fmt: skip
    write_parquet(tmp_path / "data" / "testmini-00000-of-00001-725687bf7a18d64b.parquet", [row], ["decoded_image"])
    question = only("mathvista", tmp_path)
    assert (question.text, question.answer, question.answer_type) == (row["query"], "1.2", "math")
    assert question.category == "figure question answering"
    assert question.metadata["precision"] == 1.0
    assert question.metadata["skills"] == ("statistical reasoning",)
    assert width(question) == [51]


def test_mathverse_takes_its_vision_only_version(tmp_path: Path) -> None:
    row = {
        "sample_index": "5", "problem_index": "1", "problem_version": "Vision Only", "question": "",
        "image": struct(52), "answer": "D", "question_type": "multi-choice",
        "metadata": {"split": "testmini", "source": "Geometry3K", "subject": "Plane Geometry", "subfield": "Angle"},
        "query_wo": "According to the question shown in the image, please answer.", "query_cot": "First reason.",
        "question_for_eval": "Find the angle.",
    }  # fmt: skip
    other = {**row, "sample_index": "1", "problem_version": "Text Dominant", "question": "Find the angle."}
    write_parquet(tmp_path / "testmini.parquet", [other, row], ["image"])
    write_parquet(tmp_path / "testmini_text_only.parquet", [other], ["image"])
    question = only("mathverse", tmp_path)
    assert (question.id, question.text, question.answer, question.choices) == ("1", row["query_wo"], "D", ())
    assert question.metadata["question_for_eval"] == "Find the angle."
    assert dict(find_benchmark("mathverse").categories(question)) == {
        "subject": "Plane Geometry", "subfield": "Angle", "answer": "multiple choice",
    }  # fmt: skip


def test_mmmu_reads_all_subjects_and_images_in_order(tmp_path: Path) -> None:
    images = {f"image_{number}": struct(50 + number) if number < 4 else None for number in range(1, 8)}
    row = {
        "id": "validation_Art_Theory_1", "question": "Which of <image 1> and <image 2>?", "answer": "B",
        "options": "['<image 3>', \"it's 2\"]", "question_type": "multiple-choice", **images,
    }  # fmt: skip
    art = tmp_path / "Art_Theory" / "validation-00000-of-00001.parquet"
    open_row = {**row, "id": "validation_Math_2", "options": "[]", "answer": "['4', 'four']", "question": "How many?"}
    maths = tmp_path / "Math" / "validation-00000-of-00001.parquet"
    for path, content in ((art, row), (maths, open_row)):
        write_parquet(path, [content], list(images))
    write_parquet(tmp_path / "Math" / "test-00000-of-00001.parquet", [{**row, "id": "test_Math_1"}], list(images))
    choice, free = find_benchmark("mmmu").read(str(tmp_path)).questions
    assert choice.text == (
        "Question: Which of <image 1> and <image 2>?\nOptions:\nA. <image 3>\nB. it's 2\n"
        "Please select the correct answer from the options above."
    )
    assert (choice.category, choice.answer, width(choice)) == ("Art Theory", "B", [51, 52, 53])
    assert (free.text, free.answer, free.answer_type) == ("Question: How many?", "4", "math")
    assert free.metadata["answers"] == ("4", "four")


def test_wemath(tmp_path: Path) -> None:
    row = {
        "ID": "12", "split": "testmini", "knowledge concept": "Angles", "question": "How wide?",
        "option": "A. 3; B. 4;C. A; B. and more ; D. none", "answer": "C", "image_path": struct(54), "key": "2steps_1",
        "question number": 7,
    }  # fmt: skip
    write_parquet(tmp_path / "data" / "testmini-00000-of-00001.parquet", [row], ["image_path"])
    question = only("wemath", tmp_path)
    # "B." out of turn belongs to option C.
    assert question.choices == ("3", "4", "A; B. and more", "none")
    assert (question.id, question.answer, question.category) == ("12-2steps_1", "C", "S1")
    assert width(question) == [54]


def test_dynamath_takes_the_variant_from_the_shard(tmp_path: Path) -> None:
    row = {
        "id": "3", "question": "Mean?", "image": "image/3.png", "decoded_image": struct(55), "ground_truth": "5.25",
        "answer_type": "float", "subject": "statistics", "knowledge_level": "high school",
    }  # fmt: skip
    for variant in (1, 2, 10):
        name = f"sample_variant{variant}-00000-of-00001.parquet"
        write_parquet(tmp_path / "data" / name, [row], ["decoded_image"])
    questions = find_benchmark("dynamath").read(str(tmp_path)).questions
    assert [question.id for question in questions] == ["3-1", "3-2", "3-10"]


def test_logicvista(tmp_path: Path) -> None:
    row = {"imagename": "v1_3.png", "question": "Which?", "answer": "A, C", "skill": ["spatial"], "image": struct(56)}
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [row], ["image"])
    question = only("logicvista", tmp_path)
    assert (question.id, question.answer, question.answer_type) == ("v1_3", "A, C", "text")
    assert question.metadata["skills"] == ("spatial",)


# ------------------------------------------------------------------ places


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    for split, key in (("test", "1"), ("testmini", "2")):
        (tmp_path / split).mkdir()
        table = table_of([{**VISION, "id": key}], ["decoded_image"])
        with pa.ipc.new_stream(str(tmp_path / split / "data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table)
        (tmp_path / split / "cache-0a.arrow").write_bytes(b"not to be read")
    assert only("mathvision", tmp_path, "testmini").id == "2"
    assert only("mathvision", tmp_path / "testmini").id == "2"


def test_image_paths_beside_the_shard(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "image": {"bytes": None, "path": "images/a.png"}},
        {"id": "2", "image": {"bytes": None, "path": "../a.png"}},
    ]
    path = write_parquet(tmp_path / "test.parquet", rows, ["image"])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(60))
    drops = Drops()
    (row,) = read_shards([path], drops)
    assert image_size(row.images[0])[0] == 60
    assert dict(drops.counts) == {"image path leads out of the image folder": 1}


def test_scoring_reads_no_image_bytes(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "test.parquet", [VISION], ["decoded_image"])
    (row,) = read_shards([path], Drops(), images=False)
    assert row.images == ()
    assert "decoded_image" not in row.values


def test_a_broken_shard_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(RacroError, match=r"test-00000-of-00001\.parquet cannot be read"):
        find_benchmark("mathvision").read(str(tmp_path))


def test_a_folder_without_the_split_says_what_it_holds(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [VISION], ["decoded_image"])
    with pytest.raises(RacroError, match=r"expected MathVision\.tsv, .*test-\*\.parquet.*found train\.parquet"):
        find_benchmark("mathvision").read(str(tmp_path))


def test_a_hub_id_is_read_from_what_the_hub_hands_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def snapshot(hub_id: str, repo_type: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.update(hub_id=hub_id, repo_type=repo_type, allow_patterns=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [VISION], ["decoded_image"])
    assert find_benchmark("mathvision").read("MathLLMs/MathVision").questions[0].id == "5"
    # Only the shards of the split: other splits of some data sets are large.
    assert asked == {
        "hub_id": "MathLLMs/MathVision",
        "repo_type": "dataset",
        "allow_patterns": ["*test-*.parquet", "*test.parquet"],
    }


def test_no_network_and_no_cache_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(*_: Any, **__: Any) -> str:
        raise ConnectionError("Name or service not known\nmore lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(
        RacroError, match="'no/such' is no file or folder here, and .*ConnectionError: Name or"
    ) as error:
        find_benchmark("mathvision").read("no/such")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "is_id"), [("a/b", True), ("We-Math/We-Math", True), ("a/b/c", False), ("/a/b", False), ("../b", False)]
)
def test_what_may_be_a_hub_id(name: str, is_id: bool) -> None:
    assert looks_like_hub_id(name) is is_id
