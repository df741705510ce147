"""The plain layout: what is read, how it is typed, what is dropped and counted."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from racro_pl.data import JsonlReader
from racro_pl.data.readers import jsonl
from racro_pl.images import open_image
from racro_pl.text.choices import with_choices
from racro_pl.types import ImageRef, RacroError
from tests.unit.data.conftest import row

MATHVISION = Path(__file__).resolve().parents[4] / "shared" / "data" / "mathvision"


def read_one(write_jsonl, **changes):
    result = JsonlReader(write_jsonl([row(**changes)])).read("train")
    assert not result.dropped
    return result.questions[0]


def test_a_row_becomes_a_question(write_jsonl, folder):
    question = read_one(write_jsonl, id=7, subject="counting", level=2)
    assert question.id == "7"
    assert question.images == (ImageRef(path=folder / "images/0.png"),)
    assert question.text == "<image>How many?"
    assert (question.answer, question.answer_type) == ("3", "math")
    assert (question.source, question.category, question.metadata) == ("data", "counting", {"level": 2})


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("\\boxed{\\frac{16}{7}}", "\\frac{16}{7}"), ("$\\boxed{5}$", "5"), (4.8, "4.8"), (3, "3"), (" red ", "red")],
)
def test_gold_answers_come_out_of_their_box(write_jsonl, answer, expected):
    assert read_one(write_jsonl, answer=answer).answer == expected


@pytest.mark.parametrize(
    ("changes", "kind", "answer"),
    [
        ({"answer": "B", "options": ["one", "two"]}, "choice", "B"),
        ({"answer": "two", "options": ["one", "two"]}, "choice", "B"),
        ({"answer": "(b)", "choices": {"A": "one", "B": "two"}}, "choice", "B"),
        ({"answer": "B", "question": "Which? (A) one (B) two"}, "choice", "B"),
        ({"answer": "B", "question": "Which?\nA. one\nB. two"}, "choice", "B"),
        # No option is shown: the letter is the name of something in the picture.
        ({"answer": "B", "question": "Which point is farther from C?"}, "math", "B"),
        # C is not among the options shown.
        ({"answer": "C", "question": "Which? (A) one (B) two"}, "math", "C"),
        ({"answer": "red", "answer_type": "text"}, "text", "red"),
        ({"answer": "A", "answer_type": "choice"}, "choice", "A"),
    ],
)
def test_answers_are_typed(write_jsonl, changes, kind, answer):
    question = read_one(write_jsonl, **changes)
    assert (question.answer_type, question.answer) == (kind, answer)


@pytest.mark.parametrize(
    ("options", "text", "choices"),
    [
        (["one", "two"], "<image>Which?\nOptions:\nA. one\nB. two", ("one", "two")),
        (["(A) one", "(B) two"], "<image>Which?\nOptions:\nA. one\nB. two", ("one", "two")),
        (["A", "B"], "<image>Which?", ("A", "B")),
        (["(A)", "(B)"], "<image>Which?", ("A", "B")),
        (["a", "b"], "<image>Which?", ("A", "B")),
        ([1, 2.5], "<image>Which?\nOptions:\nA. 1\nB. 2.5", ("1", "2.5")),
    ],
)
def test_options_stand_in_the_text_unless_they_are_only_letters(write_jsonl, options, text, choices):
    question = read_one(write_jsonl, question="Which?", answer="A", options=options)
    assert (question.text, question.choices) == (text, choices)
    # The scorer adds options for the reasoner: it must find them there already.
    assert with_choices(question.text, question.choices) == question.text


def test_options_already_in_the_text_are_not_repeated(write_jsonl):
    text = "Which? (A) one (B) two"
    assert read_one(write_jsonl, question=text, answer="A", options=["one", "two"]).text == "<image>" + text


@pytest.mark.parametrize(
    ("text", "count", "expected", "order"),
    [
        ("See.", 2, "<image><image>See.", [0, 1]),
        ("Is <image> in <image>?", 2, "Is <image> in <image>?", [0, 1]),
        ("Is <image1> in <image 2>?", 2, "Is <image> in <image>?", [0, 1]),
        # The second picture is mentioned first.
        ("Is <image2> in <image1>?", 2, "Is <image> in <image>?", [1, 0]),
        # A later mention is a name.
        ("Is <image1> like <image1>?", 1, "Is <image> like <image1>?", [0]),
        # One joined file, with the names drawn in it.
        ("Is <image2> like <image1>?", 1, "<image>Is <image2> like <image1>?", [0]),
        ("Is <image> in <image>?", 1, "<image>Is  in ?", [0]),
        ("See <image>.", 2, "<image><image>See .", [0, 1]),
    ],
)
def test_image_tags_fit_the_images(write_jsonl, folder, text, count, expected, order):
    question = read_one(write_jsonl, question=text, image=[f"images/{index}.png" for index in range(count)])
    assert question.text == expected
    assert [ref.path for ref in question.images] == [folder / f"images/{index}.png" for index in order]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{not json", "not a JSON object"),
        ("[1, 2]", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        (b"\xff\xfe{}", "not a JSON object"),
        ('{"a": ' + "9" * 5000 + "}", "not a JSON object"),
        ('{"question": "?", "answer": "3", "image": "images/0.png", "answer": "4"}', "not a JSON object"),
        ('{"question": "?", "answer": "3", "note": {"a": 1, "a": 2}}', "not a JSON object"),
        (row(id=True), "id is neither text nor a number"),
        ({"image": "images/0.png", "answer": "3"}, "no question"),
        (row(question="  "), "no question"),
        (row(answer=None), "no answer"),
        (row(answer=""), "no answer"),
        (row(answer="\\boxed{}"), "no answer"),
        (row(answer="$ $"), "answer is empty without its markup"),
        (row(answer="\\text{ }."), "answer is empty without its markup"),
        (row(answer=["3"]), "answer is neither text nor a number"),
        (row(answer=float("nan")), "answer is neither text nor a number"),
        (row(answer="five", options=["one", "two"]), "answer names no option"),
        (row(answer="C", options=["one", "two"]), "answer names no option"),
        (row(answer_type="number"), "unknown answer type"),
        (row(options="A or B", answer="A"), "options cannot be read"),
        (row(options=["x"] * 27, answer="A"), "options cannot be read"),
        (row(options=[None, "x"], answer="A"), "options cannot be read"),
        (row(options={"B": "x", "A": "y"}, answer="A"), "options cannot be read"),
        (row(image=None), "no image"),
        (row(image=[]), "no image"),
        (row(image=[f"images/{index}.png" for index in range(9)]), "more than 8 images"),
        (row(image=[1]), "image path is not a path"),
        (row(image="../outside.png"), "image path leads out of the image folder"),
        (row(image="images/../../outside.png"), "image path leads out of the image folder"),
        (row(image="images\\..\\..\\outside.png"), "image path leads out of the image folder"),
        (row(image="/etc/hostname"), "image path leads out of the image folder"),
        (row(image="C:\\outside.png"), "image path leads out of the image folder"),
        (row(image="images/missing.png"), "image file not found"),
        (row(image="images"), "image file not found"),
        (row(image="broken.png"), "unusable image"),
        (row(image="huge.png"), "unusable image"),
    ],
)
def test_a_bad_row_is_dropped_and_counted(write_jsonl, folder, caplog, bad, reason):
    Image.new("RGB", (4, 4)).save(folder.parent / "outside.png")
    (folder / "broken.png").write_bytes(b"no image at all")
    huge = bytearray((folder / "images/0.png").read_bytes())
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    (folder / "huge.png").write_bytes(bytes(huge))
    path = write_jsonl([row(id="first"), bad, row(id="last")])
    with caplog.at_level(logging.WARNING):
        result = JsonlReader(path).read("train")
    assert [question.id for question in result.questions] == ["first", "last"]
    assert result.dropped == {reason: 1}
    assert len(caplog.messages) == 1
    assert reason in caplog.messages[0]
    # The row is named by its line, or by its id once it is a question.
    assert caplog.messages[0].startswith(("data.jsonl:2 left out", "question a left out"))


def test_what_a_row_says_twice_is_named(write_jsonl):
    rows = ['{"question": "?", "answer": "3", "answer": "4"}', row(images=["images/1.png"]), row(id=["x"]), row()]
    named = JsonlReader(write_jsonl(rows)).read("train").named
    assert named == {
        "not a JSON object": ["data.jsonl:1 the key 'answer' stands twice in one object"],
        "several columns of images": [
            "data.jsonl:2 'image' and 'images' differ; say which counts: columns: {images: NAME}"
        ],
        "id is neither text nor a number": ["data.jsonl:3 ['x']"],
    }


def test_two_columns_of_images_may_say_the_same_or_one_is_chosen(write_jsonl, folder):
    assert len(read_one(write_jsonl, images=["images/0.png"]).images) == 1
    rows = write_jsonl([row(images=["images/1.png"])])
    [question] = JsonlReader(rows, columns={"images": "images"}).read("train").questions
    assert [ref.path for ref in question.images] == [folder / "images/1.png"]


@pytest.mark.parametrize("blank", ["", " ", None])
def test_a_blank_text_is_no_value(write_jsonl, blank):
    question = read_one(write_jsonl, answer_type=blank, options=blank, id=blank, category=blank)
    assert (question.id, question.answer_type, question.choices, question.category) == ("data-1", "math", (), "")


def test_a_file_whose_columns_have_other_names_says_how_to_name_them(write_jsonl):
    path = write_jsonl([{"problem": "How many?", "solution": "3", "picture": f"images/{i}.png"} for i in range(3)])
    with pytest.raises(RacroError, match=r"no column 'question' .* it has problem, solution, picture\. .*columns: {"):
        JsonlReader(path).read("train")
    names = {"question": "problem", "answer": "solution", "images": "picture"}
    assert len(JsonlReader(path, columns=names).read("train").questions) == 3
    # One row that has it shows that the name is right.
    mixed = JsonlReader(write_jsonl([{"problem": "?"}, {"question": None, "note": 1}, row(id="b")])).read("train")
    assert (len(mixed.questions), mixed.dropped) == (1, {"no question": 2})


def test_a_line_too_long_is_passed_over_in_pieces(write_jsonl, monkeypatch):
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 200)
    result = JsonlReader(write_jsonl([row(id="1"), row(id="2", question="x" * 999), row(id="3")])).read("train")
    assert [question.id for question in result.questions] == ["1", "3"]
    assert result.dropped == {"line too long": 1}


def test_only_the_first_rows_of_a_reason_are_named(write_jsonl, caplog):
    result = JsonlReader(write_jsonl([row(answer="")] * 50)).read("train")
    assert result.dropped == {"no answer": 50}
    assert caplog.messages == [f"data.jsonl:{line} left out: no answer" for line in (1, 2, 3)]


def test_blank_lines_and_a_byte_order_mark_are_no_rows(write_jsonl):
    path = write_jsonl([b"\xef\xbb\xbf" + b'{"question": "?", "answer": "1", "image": "images/1.png"}', "", "  "])
    result = JsonlReader(path).read("train")
    assert [question.id for question in result.questions] == ["data-1"]
    assert not result.dropped


def test_shares_split_one_file_for_good(write_jsonl):
    rows = [row(id=str(index)) for index in range(400)]
    options = {"validation_share": 0.1, "test_share": 0.2}
    splits = ("train", "validation", "test")
    first = {split: {q.id for q in JsonlReader(write_jsonl(rows), **options).read(split).questions} for split in splits}
    assert sum(map(len, first.values())) == 400
    assert set.union(*first.values()) == {str(index) for index in range(400)}
    # 40 and 80 expected; three standard deviations are 18 and 24.
    assert 22 <= len(first["validation"]) <= 58
    assert 56 <= len(first["test"]) <= 104
    # Fewer rows in another order: whoever is left is where it was.
    fewer = write_jsonl(rows[::-2])
    for split in splits:
        assert {q.id for q in JsonlReader(fewer, **options).read(split).questions} <= first[split]
    # A larger test share moves no question from test to elsewhere.
    assert first["test"] <= {q.id for q in JsonlReader(write_jsonl(rows), test_share=0.3).read("test").questions}


def test_a_bad_line_counts_in_one_split(write_jsonl):
    reader = JsonlReader(write_jsonl(["{"] * 100), validation_share=0.5)
    counts = [reader.read(split).dropped.total() for split in ("train", "validation", "test")]
    assert sum(counts) == 100
    assert counts[2] == 0


def test_splits_can_have_their_own_files_and_images_their_own_folder(write_jsonl, folder):
    test = write_jsonl([row(id="t", image="3.png")], "test.jsonl")
    reader = JsonlReader(test_path=test, images_root=str(folder / "images"))
    assert [question.id for question in reader.read("test").questions] == ["t"]
    assert reader.read("train").questions == reader.read("validation").questions == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "got no file"),
        ({"path": "a", "validation_share": 1.5}, "validation_share is 1.5; expected a share"),
        ({"path": "a", "validation_share": 0.6, "test_share": 0.6}, r"validation_share \+ test_share is 1.2"),
        ({"path": "a", "validation_path": "b", "validation_share": 0.1}, "validation_share is cut from path"),
        ({"test_path": "b", "validation_share": 0.1}, "validation_share is cut from path"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(arguments, message):
    with pytest.raises(RacroError, match=message):
        JsonlReader(**arguments)


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(RacroError, match=r"data file not found: .*none\.jsonl; expected a file with one JSON object"):
        JsonlReader(str(tmp_path / "none.jsonl")).read("train")


@pytest.mark.skipif(not MATHVISION.is_dir(), reason="the MATH-V sample is not beside the repository")
def test_mathv_reads_as_it_is():
    result = JsonlReader(str(MATHVISION / "testmini.jsonl")).read("train")
    assert len(result.questions) == 152
    assert not result.dropped
    for question in result.questions:
        assert question.text.count("<image>") == len(question.images) == 1
        assert open_image(question.images[0]).mode == "RGB"
        assert with_choices(question.text, question.choices) == question.text
        if question.answer_type == "choice":
            assert len(question.answer) == 1
            assert question.answer in "ABCDE"
    kinds = [question.answer_type for question in result.questions]
    assert (kinds.count("choice"), kinds.count("math")) == (99, 53)
    assert len({question.category for question in result.questions}) > 5


@pytest.mark.skipif(not MATHVISION.is_dir(), reason="the MATH-V sample is not beside the repository")
def test_mathv_annotations_without_images_are_dropped_and_counted():
    result = JsonlReader(str(MATHVISION / "test_annotations.jsonl")).read("train")
    present = len(list((MATHVISION / "images").iterdir()))
    assert len(result.questions) == present
    assert result.dropped == {"image file not found": 3040 - present}
