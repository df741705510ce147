"""VLMEvalKit's TSV files: images in cells, files found by name, checksums, and what may be wrong with them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from racro_pl.data.benchmarks import find_benchmark
from racro_pl.data.benchmarks.sources.tsv import find_tsv, md5_of, read_tsv
from racro_pl.data.readers.base import Drops
from racro_pl.images import image_size
from racro_pl.types import RacroError
from tests.unit.evaluation.benchmark_files import base64_png, png, write_tsv

ROW = {"index": "0", "question": "How many?", "choices": "[]", "answer": "3", "category": "counting"}


def widths(path: Path) -> tuple[list[list[int]], dict[str, int]]:
    """Widths of every row's images, and the counts of rows left out."""
    drops = Drops()
    rows = read_tsv(path, drops)
    return [[image_size(ref)[0] for ref in row.images] for row in rows], dict(drops.counts)


def test_image_cells_hold_one_image_a_list_or_the_index_of_another_row(tmp_path: Path) -> None:
    two = str([base64_png(41), base64_png(42)])
    path = write_tsv(
        tmp_path / "a.tsv",
        [
            # The row that it points to may follow.
            {"index": "7", "image": "8"},
            {"index": "8", "image": base64_png(40)},
            {"index": "9", "image": two},
            {"index": "10", "image": "9"},
        ],
    )
    assert widths(path) == ([[40], [40], [41, 42], [41, 42]], {})


def test_image_path_column_names_files_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(50))
    path = write_tsv(tmp_path / "a.tsv", [{"index": "0", "image_path": "a.png"}])
    assert widths(path) == ([[50]], {})


@pytest.mark.parametrize("listed", ["['a.png', 'b.png']", '["a.png","b.png"]', " ['a.png','b.png',] "])
@pytest.mark.parametrize("column", [{}, {"image": ""}])
def test_image_path_may_hold_a_list(tmp_path: Path, listed: str, column: dict[str, str]) -> None:
    (tmp_path / "a.png").write_bytes(png(50))
    (tmp_path / "b.png").write_bytes(png(60))
    rows = [{"index": "0", "image_path": listed, **column}, {"index": "1", "image_path": "['../a.png']", **column}]
    assert widths(write_tsv(tmp_path / "a.tsv", rows)) == ([[50, 60]], {"image path leads out of the image folder": 1})


def test_odd_bytes_cost_their_row_alone_and_odd_characters_none(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    lines = ["index\tquestion\tanswer", "0\tgood\ty", "1\tbad\udcff\ty", "2\to\0d\ufeffd\ty"]
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    drops = Drops()
    rows = read_tsv(path, drops, images=False)
    assert [(row.text("index"), row.text("question")) for row in rows] == [("0", "good"), ("2", "odd")]
    assert drops.counts == {"not UTF-8": 1}
    assert drops.repaired == ["a.tsv: row 3"]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        # One character short of a multiple of four: cut off.
        ({"image": base64_png()[:-1]}, "image is not base64"),
        ({"image": base64_png() + "*" * 4}, "image is not base64"),
        ({"image": "[" + base64_png()}, "image is neither base64 nor a list of it"),
        ({"image": "['" + base64_png() + "', __import__('os')]"}, "image is neither base64 nor a list of it"),
        ({"image": str([base64_png()] * 9)}, "more than 8 images"),
        ({"image": "99"}, "image is that of a row that is not there"),
        ({"image": ""}, "no image"),
        ({"image_path": "/etc/passwd"}, "image path leads out of the image folder"),
        ({"image_path": "../../a.png"}, "image path leads out of the image folder"),
        ({"image_path": "C:\\a.png"}, "image path leads out of the image folder"),
    ],
)
def test_a_row_with_a_bad_image_is_left_out_and_counted(tmp_path: Path, cells: dict[str, str], reason: str) -> None:
    good = {"index": "1", "image": base64_png()} if "image" in cells else {"index": "1", "image_path": "a.png"}
    path = write_tsv(tmp_path / "a.tsv", [good, {"index": "0", **cells}])
    drops = Drops()
    assert [row.text("index") for row in read_tsv(path, drops)] == ["1"]
    assert dict(drops.counts) == {reason: 1}


def test_good_base64_of_no_picture_is_left_out(tmp_path: Path) -> None:
    rows = [{**ROW, "image": base64_png()}, {**ROW, "index": "1", "image": "AAAA" * 20}]
    result = find_benchmark("mathvision").read(str(write_tsv(tmp_path / "a.tsv", rows)))
    assert [question.id for question in result.questions] == ["0"]
    assert dict(result.dropped) == {"unusable image": 1}


def test_a_row_with_another_number_of_cells_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("index\tquestion\tanswer\n0\ta\tb\n1\tonly this\n2\tc\td\n", encoding="utf-8")
    drops = Drops()
    assert [row.text("index") for row in read_tsv(path, drops, images=False)] == ["0", "2"]
    assert dict(drops.counts) == {"wrong number of cells": 1}


def test_cells_keep_line_breaks_and_tabs_inside_quotes(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "a.tsv", [{"index": "0", "question": 'a\n"b"\tc'}])
    assert read_tsv(path, Drops(), images=False)[0].text("question") == 'a\n"b"\tc'


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a TSV file"), (b"just a line\n", "not a TSV file"), ("a\tb\nc\td\n".encode("utf-16"), "not in UTF-8")],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(content)
    with pytest.raises(RacroError, match=message):
        read_tsv(path, Drops(), images=False)


def test_missing_columns_are_named_beside_those_found(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "a.tsv", [{"index": "0", "image": base64_png(), "question": "q", "answer": "1"}])
    with pytest.raises(RacroError, match=r"lacks the column options or choices\. Columns found: answer, index, quest"):
        find_benchmark("mathvision").read(str(path))


def test_a_table_without_images_is_fine_for_scoring_only(tmp_path: Path) -> None:
    path = str(write_tsv(tmp_path / "a.tsv", [ROW]))
    assert find_benchmark("mathvision").read(path, images=False).questions[0].images == ()
    with pytest.raises(RacroError, match="lacks the column image; columns found: index, question"):
        find_benchmark("mathvision").read(path)


# ------------------------------------------------------------------ found by name, checksums


@pytest.fixture
def lmu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as $LMUData, and an empty home."""
    folder = tmp_path / "lmu"
    folder.mkdir()
    monkeypatch.setenv("LMUData", str(folder))  # noqa: SIM112
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return folder


def test_files_are_found_below_lmudata_then_home(lmu: Path, tmp_path: Path) -> None:
    below_home = tmp_path / "home" / "LMUData"
    below_home.mkdir(parents=True)
    home = write_tsv(below_home / "X.tsv", [ROW])
    assert find_tsv(["Y", "X"]) == home
    named = write_tsv(lmu / "X.tsv", [ROW])
    assert find_tsv(["Y", "X"]) == named


def test_a_file_found_by_name_must_have_the_listed_checksum(lmu: Path) -> None:
    path = write_tsv(lmu / "MathVision.tsv", [{**ROW, "image": base64_png()}])
    with pytest.raises(RacroError, match=f"md5 is {md5_of(path)}, expected 93f6de14f7916e598aa1b7165589831e"):
        find_benchmark("mathvision").read()


def test_a_file_given_by_path_may_be_a_subset_and_gets_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{**ROW, "index": str(number), "image": base64_png()} for number in range(3)]
    path = write_tsv(tmp_path / "MathVision_MINI.tsv", rows)
    with caplog.at_level(logging.WARNING):
        result = find_benchmark("mathvision").read(str(path))
    assert len(result.questions) == 3
    assert [
        record.getMessage() for record in caplog.records if "060fe4fa5d868987ce179307bd5f8a33" in record.getMessage()
    ]
    assert len(caplog.records) == 1


def test_a_file_under_its_own_name_is_not_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tsv(tmp_path / "mine.tsv", [{**ROW, "image": base64_png()}])
    with caplog.at_level(logging.WARNING):
        find_benchmark("mathvision").read(str(path))
    assert not caplog.records


def test_nothing_found_says_where_was_looked(lmu: Path) -> None:
    with pytest.raises(
        RacroError, match=r"looked for MathVision_MINI\.tsv in .*lmu and .*LMUData.*MathLLMs/MathVision"
    ):
        find_benchmark("mathvision").read(split="testmini")
