import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from racro_pl.evaluation.outcomes import Judgement
from racro_pl.evaluation.scoring import strict
from racro_pl.types import Question

LENGTHS = ("12 cm", "14 cm", "16 cm", "18 cm")
LETTERS = ("A", "B", "C", "D")


def choice(gold="B", choices=LENGTHS):
    return Question("q", (), "?", gold, "choice", choices)


def math(gold, **metadata):
    return Question("q", (), "?", gold, "math", metadata=metadata)


@pytest.mark.parametrize("choices", [LENGTHS, LETTERS, ()])
@pytest.mark.parametrize(
    "response",
    [
        "B", "(B)", "B.", "b", "[B]", "**B**", "**Answer: B**", "Answer:B", "Answer B", "Ans: B", "ANSWER: B",
        "The answer is B.", "The answer is **B**", "The answer is (B) 14 cm.", "The correct option is (B)", "Option B",
        "Option B is correct.", "option B: 14 cm", "The correct option is B because A is wrong.", "B is correct.",
        "The correct answer is option B.", r"The answer is $\boxed{B}$", r"\boxed{\text{B}}", r"\boxed{B. 14 cm}",
        r"\(\boxed{\text{(B) }14}\)", "Therefore, the answer is B, since 7*2=14.", r"The answer is \textbf{(b)}.",
        "So the answer is choice B.\n\nHope this helps!", "B\n\nExplanation: A triangle ...", "(B) 14 cm\nBecause ...",
        "Reason: ...\n\n### Final Answer\n\nB", "**Final Answer:** B. 14 cm",
        "Therefore, **option (B)** is the right one.",
        "Thus (B).", "The answer to the question is B", "Answer: $B$", r"Answer: \( B \)",
        "The cat ends up at point $B$.",
        "The correct answer is: **B) 14 cm**", "I think it is either A or B. The answer is B", "Eva leaves through B.",
        "Based on the image, B is the correct answer.", "<think>C? \\boxed{C}</think>B", "答案是B", "所以选项B正确。",
        "A: 12, B: 14. So the answer is B: 14", r"Half of it. The answer is \boxed{B.",
    ],
)  # fmt: skip
def test_an_option_is_read_wherever_it_is_plainly_stated(tools, response, choices):
    assert strict.default(choice(choices=choices), response, tools) == Judgement("B", True)


@pytest.mark.parametrize(
    "response", ["14 cm", "The answer is 14 cm.", r"\boxed{14}", "It is 14 cm.", r"\boxed{7 + 7 = 14 \text{ cm}}"]
)
def test_an_option_is_read_from_its_text(tools, response):
    assert strict.default(choice(), response, tools) == Judgement("B", True)


def test_an_option_is_read_from_its_value_or_its_rounding(tools):
    ratios = choice("D", ("1:2", "1:3", r"\sqrt{3}:7", "1:4"))
    assert strict.default(ratios, r"\boxed{\frac{1}{4}}", tools).correct
    roots = choice("B", ("$3$", r"$2\sqrt{3}$", "$4$"))
    assert strict.default(roots, r"\boxed{3.46}", tools).correct  # 2 sqrt(3) = 3.4641
    assert strict.default(roots, r"\boxed{3.5}", tools) == Judgement("3.5", False)  # one decimal names nothing
    close = choice("A", ("$3.461$", "$3.464$"))
    assert not strict.default(close, r"\boxed{3.46}", tools).correct  # of which it may be either


@pytest.mark.parametrize(
    ("gold", "choices", "box"),
    [
        ("A", LETTERS, r"\text{Bike A}"), ("C", LETTERS, "Kite C"), ("B", LETTERS, r"\text{option } B"),
        ("B", ("Ann", "Bob"), r"\text{Bob}"), ("C", ("1/2", "2/3", r"$\frac{3}{4}$"), "0.75"),
        ("B", ("1", "None of these"), r"\text{None of these}"), ("B", ("1", "None of these"), "B. None of these"),
        ("B", ("$10^{\\circ}$", "$20^{\\circ}$"), "20°"),
        ("B", ("$10^{\\circ}$", "$20^{\\circ}$"), r"20 \text{ degrees}"),
        ("B", ("3", "4"), r"\textbf{B}\ 4"), ("B", ("3", "4"), r"\bf B"), ("B", ("3", "4"), r"\textbf{(B) }4"),
        ("B", ("$3 €$", "$4 €$"), r"4 \text{ euros}"), ("B", ("2 and 3", "1 and 4"), "1 and 4"),
        ("A", ("$8 \\mathrm{~kg}$", "$9 \\mathrm{~kg}$"), "8"), ("B", ("$-\\!4$", "$-\\!2$"), "-2"),
    ],
)  # fmt: skip
def test_an_option_is_read_from_a_box(tools, gold, choices, box):
    assert strict.default(choice(gold, choices), rf"\boxed{{{box}}}", tools) == Judgement(gold, True)


@pytest.mark.parametrize(
    ("gold", "box"),
    [
        ("5", r"5\,cm"), ("5", "5cm^2"), ("5", r"5 \text{ units}^2"), ("5", r"5 \, \mathrm{m/s}"), ("5", r"\$5"),
        ("5", r"5\%"), ("5", r"\text{5 cubes}"), ("5", r"AB=5\text{ cm}"), ("5", r"\approx 5"), ("5", r"5^\circ"),
        ("1200", "1,200"), ("2:3", "2:3"), ("(3,4)", "(3, 4)"), (r"\frac{8}{3}", r"2\frac{2}{3}"), ("-2", "−2"),
        (r"24+4\pi", r"4\pi + 24"), ("45^2", "2025"), (r"27000-4500\pi", r"27000 - 4500\pi \text{ cm}^3"),
    ],
)  # fmt: skip
def test_a_value_is_read_from_a_box(tools, gold, box):
    assert strict.default(math(gold), rf"\boxed{{{box}}}", tools).correct


@pytest.mark.parametrize("choices", [LENGTHS, LETTERS, ()])
@pytest.mark.parametrize(
    "response",
    [
        "", "None", "N/A", "Cannot be determined", "I cannot determine the answer", "A triangle has area twelve",
        "The answer is A triangle", "The answer is not B.", "The answer is A, B, and C.",
        "The answer is neither A nor B.", "A or B",
        "The options are A, B, C and D.", "Is it B?", "Point B lies on the line", "In triangle ABC, AB = BC.",
        r"\boxed{}", r"\boxed{\text{None}}", "<think>B", "B is wrong, and so are C and D.", "Sorry, I need more of it.",
    ],
)  # fmt: skip
def test_nothing_is_guessed_for_a_choice(tools, response, choices):
    assert strict.default(choice(choices=choices), response, tools) == Judgement(None, False)


def test_a_box_that_names_no_option_is_wrong_but_extracted(tools):
    assert strict.default(choice(), r"\boxed{60}", tools) == Judgement("60", False)
    assert strict.default(choice(), r"\boxed{A or B}", tools) == Judgement("A or B", False)
    # The last statement counts where the box names none.
    assert strict.default(choice(choices=LETTERS), r"\boxed{60}. The answer is (B)", tools).correct


@pytest.mark.parametrize(
    "response",
    [
        "12", "12.", "12.0", "x = 12", "$12$", r"\(12\)", "12 cm", "12 cm^2", "12 square units", "The answer is 12.",
        "the answer is 12 cm. Because of that.", "**Answer: 12**", r"The final answer is $\boxed{12}$.",
        r"\boxed{12\text{ cm}}", r"\boxed{x=12}", r"\boxed{12 \text{ apples}}", r"\boxed{AB = 3\cdot 4 = 12}",
        "So there are 12 triangles.", "There are 12 triangles in the image.", "The total is 3 + 9 = 12.", "Hence, 12.",
        "Therefore, the area of the figure is 12 square units.", "The answer is:\n\n12", "The answer is\n\\[12\\]",
        "**Final answer:** \\( 12 \\)", "The value of x is approximately 12.", "the sum is equal to 12", r"\$12",
        "The correct answer is 12. This is because 3 * 4 = 12, and 7 is smaller than 8.", "#### 12", "12 people",
        "12\n\nExplanation: the shape has many sides.", r"So, the answer is \boxed{12",
        "There are a total of 12 squares.",
        r"The length is therefore $12\,\text{cm}$.", r"\boxed{1} no, \boxed{12}", "$\x08oxed{12}$",
        "so boxed{12}", "<think>\\boxed{5}</think>12",
    ],
)  # fmt: skip
def test_a_value_is_read_wherever_it_is_plainly_stated(tools, response):
    assert strict.default(math("12"), response, tools).correct


@pytest.mark.parametrize(
    "response",
    [
        "", "None", "N/A", "Unknown", "cannot be determined", "I do not know", r"\boxed{\text{cannot be determined}}",
        "We have 12 apples and 3 pears.", "12 apples are red and 7 are green",
        "<think>12", "We draw it:\ndraw((0,0)--(12,", "The answer cannot be determined from 12.",
    ],
)  # fmt: skip
def test_nothing_is_guessed_for_a_value(tools, response):
    assert strict.default(math("12"), response, tools) == Judgement(None, False)


@pytest.mark.parametrize("response", ["-12", "12/5", r"\boxed{12\pi}", "12 or 13", r"\boxed{12, 13}", "12.01", "1:12"])
def test_another_value_is_wrong_but_extracted(tools, response):
    judgement = strict.default(math("12"), response, tools)
    assert judgement.extracted is not None
    assert not judgement.correct


def test_numbers_are_compared_exactly(tools):
    assert not strict.default(math(r"\frac{1}{3}"), "0.33", tools).correct  # the authors' script says yes
    assert strict.default(math("0.5"), r"\boxed{\frac12}", tools).correct
    assert strict.default(math(r"2\sqrt{3}"), r"\boxed{\sqrt{12}}", tools).correct


def test_words(tools):
    question = Question("q", (), "?", "Light red", "text")
    assert strict.default(question, "The answer is light red.", tools).correct
    assert strict.default(question, "red", tools) == Judgement("red", False)
    assert strict.default(question, "I look closely. The color of the square is light red.", tools).correct
    # More than a few words after the verb are a sentence of their own, and a prompt that comes back answers nothing.
    assert strict.default(question, "The fill is a circle filled with light red", tools).extracted is None
    assert strict.default(question, r"The final answer must be put in \boxed{}.", tools).extracted is None


def test_numbers_as_words(tools):
    assert strict.default(Question("q", (), "?", "four", "text"), "The count is 4.\n\n### Answer: 4", tools).correct


def test_mathvista_numbers(tools):
    integer = math("14", answer_type="integer")
    assert strict.mathvista(integer, "14.0 years", tools).correct
    assert strict.mathvista(integer, "1,4", tools).correct is False
    assert not strict.mathvista(math("1", answer_type="integer"), r"\boxed{4/3}", tools).correct
    tenths = math("1.2", answer_type="float", precision=1.0)
    assert strict.mathvista(tenths, "The distance is 1.16 m.", tools).correct  # 1.16 rounds to 1.2
    assert not strict.mathvista(tenths, "1.26", tools).correct  # to 1.3
    # Without a precision, the gold answer's own decimals say how to round.
    assert strict.mathvista(math("1.2", answer_type="float"), "1.16", tools).correct
    assert strict.mathvista(math("[0, 2]", answer_type="list"), r"\boxed{[0,2]}", tools).correct
    yes = Question("q", (), "?", "A", "choice", ("Yes", "No"), metadata={"answer_type": "text"})
    assert strict.mathvista(yes, "Yes", tools).correct
    assert strict.mathvista(yes, "N/A", tools) == Judgement(None, False)  # nearest in spelling to "No", or to "Yes"?


def test_mmmu_accepts_any_of_its_answers(tools):
    question = math("0.5", answers=("0.5", r"\frac{1}{3}"))
    assert strict.mmmu(question, r"\boxed{1/3}", tools).correct
    assert strict.mmmu(question, "0.50", tools).correct
    assert not strict.mmmu(question, "0.6", tools).correct
    assert strict.mmmu(choice(), "(B)", tools).correct


def test_dynamath_has_a_tolerance_of_a_thousandth(tools):
    assert strict.dynamath(math("3.142"), r"\boxed{\pi}", tools).correct  # |3.14159 - 3.142| = 0.00041
    assert strict.dynamath(math("0.5"), "0.501", tools).correct
    assert not strict.dynamath(math("0.5"), "0.5011", tools).correct
    even = Question("q", (), "?", "even function", "text")
    assert strict.dynamath(even, r"\boxed{Even}", tools).correct
    assert not strict.dynamath(even, "odd", tools).correct
    assert strict.dynamath(choice(choices=()), "Answer: B", tools).correct


@pytest.mark.parametrize(
    ("response", "gold", "correct"),
    [
        (r"\boxed{C}", "C", True), ("The answer is C.", "C", True), (r"\boxed{A, C}", "A, C", True),
        ("CA", "A, C", True),
        (r"\boxed{(A) and (C)}", "A, C", True), (r"\boxed{\text{A},\text{C}}", "A, C", True), ("A", "A, C", False),
        ("A, B, C", "A, C", False), ("None", "A", False), (r"\boxed{A}", "B", False), ("AA", "A", True),
    ],
)  # fmt: skip
def test_logicvista_compares_sets_of_letters(tools, response, gold, correct):
    question = Question("q", (), "?", gold, "choice" if len(gold) == 1 else "text")
    assert strict.logicvista(question, response, tools).correct is correct


RULES = [
    (strict.default, choice()), (strict.default, math("12")), (strict.default, Question("q", (), "?", "red", "text")),
    (strict.mathvista, math("12", answer_type="integer")), (strict.mathvista, math("1.2", answer_type="float")),
    (strict.dynamath, math("0.5")), (strict.mmmu, math("0.5", answers=("0.5", "1"))),
    (strict.logicvista, Question("q", (), "?", "A, C", "text")),
]  # fmt: skip
MATHEMATICAL = st.text(alphabet="0123456789ABCabcxyz+-*/^(){}[],.:=\\ $%\n", max_size=60)


@pytest.mark.parametrize(("rule", "question"), RULES)
@given(response=st.one_of(st.text(max_size=200), MATHEMATICAL, MATHEMATICAL.map(r"the answer is \boxed{{{}}}".format)))
@settings(max_examples=30)
def test_no_text_makes_a_rule_fail(hasty_tools, rule, question, response):
    judgement = rule(question, response, hasty_tools)
    assert not (judgement.correct and judgement.extracted is None)


HUGE = 2_000_000
HOSTILE = {
    "tower": r"\boxed{9**9**9**9}",
    "power": r"\boxed{9^{9^{9^{9}}}}",
    "factorial": r"\boxed{99999999!}",
    "opening braces": "{" * HUGE,
    "boxes": r"\boxed{" * (HUGE // 7),
    "pairs": "{}" * (HUGE // 2),
    "nested": "{" * (HUGE // 2) + "}" * (HUGE // 2),
    "commas": "\\boxed{" + "1," * (HUGE // 2) + "}",
    "bare commas": "," * HUGE,
    "letters": "A, " * (HUGE // 3),
    "spaces": " " * HUGE + "x",
    "answers": "answer " * (HUGE // 7),
    "equals": "=" * HUGE,
    "digits": "9" * HUGE,
    "dashes": "5 " + "-a" * 57 + "!",
    "letter list": r"\boxed{" + "A ,  " * 90 + "x}",
    "fractions": r"\frac" * (HUGE // 5),
    "thoughts": "<think></think>" * (HUGE // 15),
    "dots": ". " * (HUGE // 2),
    "dollars": "$" * HUGE,
    "not": "not enough " * (HUGE // 11),
}
"""Responses that make careless scorers hang; shared with the tests of the other rules."""


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_bounded(hasty_tools, name):
    began = time.process_time()  # this process's: the worker has a limit of its own
    for rule, question in RULES:
        assert rule(question, HOSTILE[name], hasty_tools).correct is False
    assert time.process_time() - began < 30
