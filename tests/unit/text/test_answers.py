import pytest
from hypothesis import given
from hypothesis import strategies as st

from racro_pl.text.answers import before_box, boxed_answer, extract_answer, last_boxed, unbox, visible_text
from racro_pl.text.choices import choice_letter


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("plain", "plain"),
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),  # templates may have written the opening tag already
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>never closed", ""),
        ("b<think>never closed", "b"),
    ],
)
def test_visible_text(text, visible):
    assert visible_text(text) == visible


@pytest.mark.parametrize(
    ("text", "boxed"),
    [
        (r"\boxed{3}", "3"),
        (r"\boxed { 3 }", "3"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"{\bf \boxed{x}}", "x"),
        (r"\boxed{1} then \boxed{2", "1"),  # the last one was cut off
        (r"\boxed{a \boxed{3}", "3"),
        (r"\boxed{\left\{x\right.}", r"\left\{x\right."),  # an escaped brace is no brace
        (r"\boxed{1\\}", r"1\\"),  # an escaped backslash does not escape the brace after it
        (r"} \boxed{3} {", "3"),
        (r"\boxed{}", ""),
        (r"\\boxed{3}", "3"),  # escaped once too often
        (r"so \\\boxed{3}", "3"),  # after a line break
        (r"\boxed{3", None),
        (r"\fbox{3}", None),
        (r"\boxed 3", None),
        ("", None),
    ],
)
def test_last_boxed(text, boxed):
    assert last_boxed(text) == boxed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{ 17 }", "17"),
        (r"<think>\boxed{1}</think> \boxed{2}", "2"),
        (r"<think>\boxed{1}</think> no idea", None),
        (r"<think>\boxed{1}", None),
        (r"\boxed{}", None),
        ("The answer is 17.", None),
    ],
)
def test_extract_answer(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "box", [r"\boxed{5}", r"\\boxed{5}", r"\boxed {5}", "boxed{5}", "\x08oxed{5}", "<|begin_of_box|>5<|end_of_box|>"]
)
def test_what_stands_before_a_box_in_each_form_that_is_read(box):
    assert boxed_answer(f"five dots. {box} or {box}")[0] == "5"
    assert before_box(f"five dots. {box} or {box}") == "five dots. "
    assert before_box("unboxed") == "unboxed"


@given(st.text(alphabet="\\{}boxed<>/think1 "))
def test_extraction_never_raises(text):
    answer = extract_answer(text)
    assert answer is None or answer.strip()


def test_extraction_is_linear():
    # Quadratic work on 200,000 open boxes would take minutes.
    assert last_boxed(r"\boxed{" * 200_000) is None


@pytest.mark.parametrize(
    ("gold", "plain"),
    [(r"\boxed{17}", "17"), (r"$\boxed{\frac12}$", r"\frac12"), (" 17 ", "17"), ("x = 3", "x = 3"),
     (r"\boxed{3", r"\boxed{3")],
)  # fmt: skip
def test_unbox(gold, plain):
    assert unbox(gold) == plain


@pytest.mark.parametrize(
    "answer",
    ["B", "b", "(B)", "B.", "B)", "B: blue", "B. 3", "(B) blue", r"\text{B}", r"\textbf{(B)}", "**B**", "$B$",
     "Option B", "The correct answer is B.", "blue", "Blue."],
)  # fmt: skip
def test_an_answer_names_its_option(answer):
    assert choice_letter(answer, ["red", "blue", "green"]) == "B"


@pytest.mark.parametrize("answer", ["", "A triangle", "A and B", "AB", "yellow", "E", "3"])
def test_an_answer_that_names_no_option(answer):
    assert choice_letter(answer, ["red", "blue", "green"]) is None


def test_option_texts_that_are_numbers():
    assert choice_letter("1000", ["10", "1,000"]) == "B"
    assert choice_letter(r"\frac12", ["0.5", "2"]) == "A"
    assert choice_letter("5", ["5", "5.0"]) is None  # names two options
