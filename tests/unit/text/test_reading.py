"""Reading answers: boxes that are one list, tags, and what a text without a box ends up with."""

import pytest

from racro_pl.text.answers import boxed_answer, extract_answer, tagged_answer, unbox
from racro_pl.text.final_letter import final_letter
from racro_pl.text.final_value import final_value
from racro_pl.text.sentences import is_non_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"$\boxed{7}$ and $\boxed{9}$", "7, 9"), (r"x=\boxed{7}, y = \boxed{9}", "7, 9"),
        (r"\boxed{7}, \boxed{7}", "7"),
        (r"\boxed{7}\text{ or }\boxed{9}", "7, 9"), (r"first \boxed{7}. In the end \boxed{9}", "9"),
        (r"\boxed{7} \boxed{9}", "9"), ("<|begin_of_box|>7<|end_of_box|>", "7"), ("so boxed{7}", "7"),
        ("$\x08oxed{7}$", "7"),
        (r"\boxed{7} <|begin_of_box|>9<|end_of_box|>", "9"), ("unboxed{7}", None), ("<|begin_of_box|>7", None),
    ],
)  # fmt: skip
def test_boxes(text, answer):
    assert extract_answer(text) == answer


def test_many_boxes_in_a_row_are_bounded():
    assert boxed_answer(r"\boxed{1} and " * 50_000)[0] == "1"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>D</answer>", "D"), ("<ANSWER> 7", "7"), (r"<answer>\fbox{7}</answer>", "7"),
        (r"$\framebox{7}$", "7"),
        ('{"answer": 7}', "7"), ('```json\n{"reason": "x", "answer": "7"}\n```', "7"), ('{"answer": [7]}', None),
        ('{"answer": true}', None), ("{7}", None), ('{"answer": 7', None), ("no tags", None),
    ],
)  # fmt: skip
def test_tags(text, answer):
    assert tagged_answer(text) == answer


def test_a_gold_keeps_its_lost_backslash():
    assert unbox("\x0crac{5}{8}") == r"\frac{5}{8}"
    assert unbox("$\\boxed{\\frac{5}{8}}$ ") == r"\frac{5}{8}"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("故选：B。", "B"), ("本题应选B", "B"), ("正确答案是 B。", "B"), ("【答案】B", "B"),
        ("B because the sum is 9.", "B"),
        ("Not A, so B.", "B"), ("The answer is not A but B.", "B"), ("The answer is B, not A.", "B"),
        ("B is right, A and C are wrong.", "B"), ("Answer: B\n\nI hope this helps! Let me know.", "B"),
        ("All but B.", None), ("Not B.", None), ("We can rule out B.", None), ("Option B is not correct.", None),
        ("The answer cannot be B.", None), ("A or B is correct.", None),
        ("The answer is B if x > 0, otherwise A.", None),
        ("不选B", None), ("B?", None), ("The answer is (A), (B) and (C).", None),
    ],
)  # fmt: skip
def test_letters(text, letter):
    assert final_letter(text, ("one", "two", "three")) == letter


def test_an_option_that_says_that_nothing_can_be_said():
    options = ("7", "9", "Cannot be determined")
    assert final_letter("The area cannot be determined.", options) == "C"
    assert final_letter("I cannot determine it from the image.", options) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("There are seven dots.", "seven"), ("7 is the answer.", "7"), ("The answer is 7 since 3+4=7.", "7"),
        ("因此，共有7个。", "7个"), ("所以答案是 7。", "7"), ("The ratio is 3:7.", "3:7"), ("Time: 3:07", "3:07"),
        ("x = 2 or x = 7.", "x = 2 or x = 7"), ("The answer is 7 million people.", "7 million people"),
        ("The answer is 7 or more.", "7 or more"), ("It is 7.\n\nI hope this helps!", "7"),
    ],
)  # fmt: skip
def test_values(text, value):
    assert final_value(text) == value


def test_empty_sets_and_infinities_are_answers():
    assert not is_non_answer(r"\{\}")
    assert not is_non_answer("∞")
    assert is_non_answer("-")
    assert is_non_answer(" $ $ ")


def test_unboxing_is_linear():
    # Quadratic work on half a million spaces, or dollars, would take minutes.
    for text in (" " * 500_000 + "x", "$" * 500_000, " $" * 250_000):
        assert unbox(text) == text.strip()


@pytest.mark.parametrize("text", ["7 is wrong.", "I don't think it is 7.", "It isn't 7."])
def test_a_value_that_is_denied_is_none(text):
    assert final_value(text) != "7"


@pytest.mark.parametrize(
    "text", ["It costs $7.", "You need 7 tiles.", "一共有7个。", "3 rows of 2 and one, so 7 dots."]
)
def test_a_value_after_other_verbs(text):
    assert "7" in final_value(text)
    assert "rows" not in final_value(text)


@pytest.mark.parametrize(
    "text",
    ["The answer is 7. Wait, no, it is 9.", "The answer is 7. Actually, it is 9.", "The answer is 9.",
     "The answer is 7. Wait, I forgot 2. The answer is 9."],
)  # fmt: skip
def test_what_is_taken_back_is_no_answer(text):
    assert final_value(text) == "9"
    assert final_letter(text.replace("7", "A").replace("9", "B"), ("one", "two", "three")) == "B"


@pytest.mark.parametrize(
    ("text", "letter"),
    [("I choose B", "B"), ("I'd choose (B).", "B"), ("I will go with option C", "C"), ("I choose B or C", None),
     ("I choose a line. The answer is C.", "C"), ("I would not choose B", None)],
)  # fmt: skip
def test_an_option_that_is_chosen(text, letter):
    assert final_letter(text, ("one", "two", "three")) == letter


def test_a_no_takes_an_answer_back():
    assert final_value("Answer: 7\nNo, that is wrong.") != "7"
