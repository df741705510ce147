import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from racro_pl.evaluation.outcomes import Judgement
from racro_pl.evaluation.scoring import official, strict
from racro_pl.evaluation.scoring.official_mathvision import extract
from racro_pl.evaluation.scoring.official_mathvista import edit_distance
from racro_pl.types import Question
from tests.unit.evaluation.test_strict import HOSTILE

# ------------------------------------------------------------------ MathVision


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("60", "60"), ("A", "a"), ("(C)", "c"), ("3.", "3"), ("The answer is (D).", "d"),
        ("So it is the shape C.", "c"),
        ("B\nBecause it is.", "b"), ("(B)\nBecause", "b"), ("(B) B\nBecause", "b"),
        ("In the end the number of cubes is 17.", "17"),
        ("The answer is 4/3.", "4/3"),  # the dot goes last: too late for the slash to be a fraction
        ("1/2", r"\frac{1}{2}"), ("0.5", r"\frac{1}{2}"), (".25", "0.25"), (r"\tfrac{1}{2}", r"\frac{1}{2}"),
        (r"The answer is $\boxed{42}$.", "42"), (r"\boxed{1} no, \boxed{2}", "2"), (r"\boxed{80^\circ}", "80"),
        (r"\boxed{x = 3 \text{ units}}", "3"),
        (r"\boxed{\text{(B)}}", "b"), ("[D]", "[d]"), (r"The answer is \textbf{(D)}.", "bfd"),
        (r"8\mathrm{~kg}", r"8\mathrm{~kg}"), (r"(C) $25 \%$", "c25"),
        ("? should be replaced with 60.", "?shouldbereplacedwith60"),
        ("The answer is: 14", "14"), ("the correct answer is 7. Or is it 8", "7"),
        (r"5 \approx 6", "6"), (r"2\sqrt3", r"2\sqrt{3}"), ("", ""), (r"\boxed{}", r"\boxed"),
    ],
)  # fmt: skip
def test_mathvision_extraction(response, answer):
    assert extract(response) == answer


def vision(gold, choices=()):
    return Question("q", (), "?", gold, "choice" if choices else "math", choices)


@pytest.mark.parametrize(
    ("gold", "choices", "response", "correct"),
    [
        ("60", (), "60", True), ("60", (), "60.0", True), ("60", (), "60.004", True), ("60", (), "60.01", False),
        (r"\frac{119}{6}", (), "19.83", True),  # 119/6 = 19.8333, to two decimals
        (r"$\frac{1}{3}$", (), r"\boxed{0.33}", True), ("B", ("1", "2"), "B", True), ("B", ("1", "2"), "2", True),
        ("B", ("1", "2"), "1", False), ("D", ("4", "5", "6", "7"), "[D]", False),
        ("C", ("1", "2", r"$8 \mathrm{~kg}$"), "8", False),  # theirs: a unit in the option makes it no number
        ("B", ("1", r"$45^{\circ}$"), r"\boxed{45^\circ}", False),
        ("(1,2)", (), "(1.001, 2)", True), ("(1,2)", (), "(2, 1)", False), ("[1,2]", (), "(1,2)", False),
        # Their parser stops at a brace that closes nothing.
        (r"\frac{1}{4}", (), r"\boxed{\frac{1}{4}} of it. The answer is \frac{1}{4}", True),
        ("4", (), "", False), ("4", (), "four", False), (r"2\pi", (), "6.28", True),
    ],
)  # fmt: skip
def test_mathvision(tools, gold, choices, response, correct):
    assert official.mathvision(vision(gold, choices), response, tools).correct is correct


# ------------------------------------------------------------------ MathVista


def vista(gold, kind, choices=(), precision=None):
    if choices:
        return Question("q", (), "?", gold, "choice", choices, metadata={"answer_type": "text"})
    metadata = {"answer_type": kind, "precision": precision, "answer_raw": gold}
    return Question("q", (), "?", gold, "math", metadata=metadata)


@pytest.mark.parametrize(
    ("gold", "kind", "precision", "extraction", "predicted", "correct"),
    [
        ("5", "integer", None, "5", "5", True), ("5", "integer", None, "5.7", "5", True),
        ("5", "integer", None, "five", None, False), ("5", "integer", None, "5 cm", None, False),
        ("5", "integer", None, "inf", None, False), ("1.2", "float", 1.0, "1.18", "1.2", True),
        ("1.2", "float", 1, "1.26", "1.3", False), ("1.20", "float", 2, "1.2", "1.2", False),  # as strings
        ("[0, 2]", "list", None, "[0, 2]", "[0, 2]", True), ("[0, 2]", "list", None, "[0,2]", "[0,2]", False),
    ],
)  # fmt: skip
def test_mathvista_numbers(tools, gold, kind, precision, extraction, predicted, correct):
    assert official.mathvista(vista(gold, kind, (), precision), extraction, tools) == Judgement(predicted, correct)


def test_mathvista_choices(tools):
    sizes = vista("B", "text", ("5 cm", "12 cm", "13 cm"))
    assert official.mathvista(sizes, "B", tools) == Judgement("12 cm", True)
    assert official.mathvista(sizes, "It is (b) I guess", tools).correct
    assert official.mathvista(sizes, "12cm", tools).correct  # one deletion from "12 cm"
    assert official.mathvista(sizes, "G", tools) == Judgement("5 cm", False)
    twice = vista("D", "text", ("9", "12", "18", "18"))
    assert official.mathvista(twice, "C", tools).correct  # the same text as D


def test_mathvista_gives_a_non_answer_some_option_and_strict_does_not(tools):
    # Distance to "N/A": "odd" 3, "even" 4. The gold answer happens to be "odd".
    question = vista("A", "text", ("odd", "even"))
    assert official.mathvista(question, "N/A", tools) == Judgement("odd", True)
    assert strict.mathvista(question, "N/A", tools) == Judgement(None, False)


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("a", "a", 0), ("N/A", "even", 4)],
)
def test_edit_distance(first, second, distance):
    assert edit_distance(first, second) == edit_distance(second, first) == distance


# ------------------------------------------------------------------ any text

QUESTIONS = [
    (official.mathvision, vision("12")), (official.mathvision, vision("B", ("1", r"\frac{1}{2}"))),
    (official.mathvision, vision("(1,2)")), (official.mathvista, vista("5", "integer")),
    (official.mathvista, vista("1.2", "float", (), 1.0)), (official.mathvista, vista("A", "text", ("odd", "even"))),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "question"), QUESTIONS)
@given(response=st.one_of(st.text(max_size=200), st.text(alphabet="0123ab(){}[],.=\\/$ oxedfrcsqt", max_size=60)))
@settings(max_examples=30)
def test_no_text_makes_a_rule_fail(hasty_tools, rule, question, response):
    assert rule(question, response, hasty_tools).correct in (True, False)


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_bounded(hasty_tools, name):
    began = time.process_time()  # this process's: the worker has a limit of its own
    for rule, question in QUESTIONS:
        rule(question, HOSTILE[name], hasty_tools)
    assert time.process_time() - began < 30
