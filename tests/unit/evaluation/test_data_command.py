"""``racro-pl data``: what it prints, and its exit codes."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from racro_pl.commands.data import main
from racro_pl.types import RacroError
from tests.unit.evaluation.benchmark_files import base64_png, png, write_json, write_tsv


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LMUData", str(tmp_path / "lmu"))  # noqa: SIM112
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_list_shows_every_benchmark_and_what_is_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home" / "LMUData").mkdir(parents=True)
    write_tsv(tmp_path / "home" / "LMUData" / "WeMath.tsv", [{"index": "0", "image": "x"}])
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for text in ("MathVista", "worst case", "MathVision_MINI.tsv", "5010", "We-Math/We-Math", "built in"):
        assert text in shown
    assert "~/LMUData/" in shown
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 100


def test_check_tells_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"question": "Which?\n<image1>", "options": ["2", "2"], "answer": "B", "subject": "[counting]"}
    rows = [
        {**row, "id": "1", "image": "a.png"},
        {**row, "id": "2", "image": "gone.png"},
        {**row, "id": "3", "image": "b.png", "options": [], "answer": ""},
        {**row, "id": "4", "image": "a.png"},
    ]
    path = write_json(tmp_path / "testmini.jsonl", rows, ["a.png", "b.png"])
    assert main(["check", "MathVision", str(path)]) == 0
    shown = capsys.readouterr().out
    for text in (
        "MathVision, split testmini", "2 of 304 in the complete split", "image file not found", "gone.png",
        "no answer", "testmini.jsonl:3", "two options alike", "same text and images as another", "[counting]: 2",
        "choice: 2", "A. 2", "image 40x30", "usable, but 302 questions fewer",
    ):  # fmt: skip
        # Long paths are broken over lines.
        assert text.replace(" ", "") in "".join(shown.replace("│", "").split()), text
    for fact in (r"^rows +4 *$", r"^left out +2 *$", r"^missing images +1 *$"):
        assert re.search(fact, shown, re.MULTILINE), fact


def test_check_fails_when_nothing_is_usable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "1", "question": "Q?", "options": [], "answer": "1", "image": "gone.png"}
    assert main(["check", "mathvision", str(write_json(tmp_path / "a.jsonl", [row]))]) == 1
    assert "not usable: no question is left" in capsys.readouterr().out


def test_check_decodes_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = base64.b64encode(png(200)[:60]).decode()  # the header is whole, the pixels are not
    rows = [
        {"index": "0", "image": base64_png(), "question": "Q?", "answer": "A", "skill": "spatial"},
        {"index": "1", "image": cut, "question": "R?", "answer": "A", "skill": ""},
    ]
    assert main(["check", "logicvista", str(write_tsv(tmp_path / "a.tsv", rows))]) == 0
    shown = capsys.readouterr().out
    assert "image cannot be decoded" in shown
    assert "1: image <60 bytes>: broken pixels" in " ".join(shown.split())
    assert "no category" in shown


def test_check_names_groups_that_lack_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"question": "Q?", "A": "1", "B": "2", "answer": "A", "image": base64_png()}
    rows = [{**row, "index": str(n), "ID": "77", "key": f"2steps_{n}"} for n in (1, 2)]
    assert main(["check", "wemath", str(write_tsv(tmp_path / "a.tsv", rows))]) == 0
    assert "group with questions missing" in capsys.readouterr().out


def test_check_of_the_figure_world(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "figures"]) == 0
    assert "usable: the complete split" in capsys.readouterr().out


def test_a_typo_in_the_name() -> None:
    with pytest.raises(RacroError, match="did you mean 'logicvista'"):
        main(["check", "logicvsta"])


def test_check_reads_what_a_training_configuration_reads(tmp_path, capsys):
    config = tmp_path / "mix.yaml"
    config.write_text(
        "data:\n  reader:\n    class_path: racro_pl.data.MixedReader\n    init_args:\n      readers:\n"
        "        a: {class_path: FigureWorldReader, init_args: {train: 8, validation: 3}}\n"
        "        b: {class_path: FigureWorldReader, init_args: {train: 2, seed: 1}}\n"
        "      weights: {a: 1, b: 1}\n"
    )
    assert main(["check", "--config", str(config)]) == 0
    said = capsys.readouterr().out
    assert "above the weight of a" in said
    assert "question a/" in said
    assert main(["check", "--config", str(config), "--split", "validation"]) == 0
    assert "usable" in capsys.readouterr().out
    with pytest.raises(RacroError, match="got 'odd'"):
        main(["check", "--config", str(config), "--split", "odd"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: {}", "has no data.reader"),
        ("a: [", "is no YAML file"),
        ("data: {reader: {class_path: os.system}}", "outside racro_pl, lightning, torch"),
        ("data: {reader: {class_path: racro_pl.data.MixedReader, init_args: {odd: 1}}}", "data.reader"),
        ("data: {reader: {class_path: racro_pl.data.MixedReader, init_args: {readers: {}}}}", "no readers"),
    ],
)
def test_check_says_what_a_configuration_lacks(tmp_path, content, message):
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(RacroError, match=message):
        main(["check", "--config", str(tmp_path / "c.yaml")])


def test_own_questions_may_be_a_table(tmp_path, capsys):
    Image.new("RGB", (30, 30)).save(tmp_path / "a.png")
    (tmp_path / "own.csv").write_text("question,answer,image\nHow many?,3,a.png\nWhich?,,a.png\nWhich?,3,gone.png\n")
    assert main(["check", "own", str(tmp_path / "own.csv")]) == 0
    shown = capsys.readouterr().out
    assert "How many?" in shown
    # Rows left out are named.
    assert re.search(r"no answer +1 +own.csv row 2", shown)
    assert re.search(r"image file not found +1 +question own-3", shown)


def write_parts(folder: Path, *parts: str) -> str:
    folder.mkdir()
    for part in parts:
        rows = {"question": [f"How many in {part}?"], "answer": ["3"], "image": [png()]}
        pq.write_table(pa.table(rows), folder / f"{part}-00000-of-00001.parquet")
    return str(folder)


@pytest.mark.parametrize(
    ("parts", "split", "split_read", "part_read"),
    [
        (["train"], [], "train", "train"),
        (["train"], ["--split", "train"], "train", "train"),
        (["train", "test"], [], "test", "test"),
        (["train", "test"], ["--split", "train"], "train", "train"),
        (["train", "dev", "val"], ["--split", "validation"], "validation", "val"),
        (["numbers"], [], "train", "numbers"),
    ],
)
def test_own_questions_may_be_any_part_of_a_folder(tmp_path, capsys, parts, split, split_read, part_read):
    assert main(["check", "own", write_parts(tmp_path / "own", *parts), *split]) == 0
    shown = capsys.readouterr().out
    assert f"Own, split {split_read}: " in shown
    assert f"How many in {part_read}?" in shown


@pytest.mark.parametrize(
    ("parts", "split", "message"),
    [
        (["train"], ["--split", "test"], "no part test; it has train: name one of these as split"),
        (["train", "validation"], [], "no part test; it has validation, train: name one of these"),
        (["train"], ["--split", "odd"], "splits test, validation, train; got 'odd'"),
        ([], [], "no parquet or arrow files; give a folder with some"),
    ],
)
def test_a_part_of_own_questions_that_is_not_there_is_told_with_those_that_are(tmp_path, parts, split, message):
    with pytest.raises(RacroError, match=message):
        main(["check", "own", write_parts(tmp_path / "own", *parts), *split])


def test_a_file_of_own_questions_is_the_test_split(tmp_path):
    with pytest.raises(RacroError, match="one file of own questions, whose only split is test; got 'train'"):
        main(["check", "own", str(tmp_path / "own.jsonl"), "--split", "train"])
