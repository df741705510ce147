import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from racro_pl.text.algebra import equations_equal, formulas_equal, value_of


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (r"\sqrt{20}", r"2\sqrt5"), ("(a-b)(a+b)", "a^2-b^2"), (r"\sin^2 t+\cos^2t", "1"), (r"\log_3 81", "4"),
        (r"\sqrt[3]{-8}", "-2"), (r"\frac{\sqrt7+1}4", r"\frac{1+\sqrt7}{4}"), ("e^{i\\pi}", "-1"), ("5!", "120"),
        (r"\tan^{-1} 1", r"\frac{\pi}{4}"), (r"\binom{5}{2}", "10"), (r"\lfloor 3.7\rfloor", "3"), ("|{-3}|", "3"),
        ("2**5", "32"), (r"3\frac14", "3.25"), ("1/2x", r"\frac{x}{2}"), (r"x_{1}+x_2", "x_2+x_1"), ("ab/(ba)", "1"),
        (r"\ln e^3", "3"), ("2^{-3}", "0.125"), (r"\frac12\div\frac14", "2"), (r"\sqrt{x^4}", "x^2"),
    ],
)  # fmt: skip
def test_equal(first, second):
    assert formulas_equal(first, second) is True


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x", "X"), (r"\frac{1}{10^{30}}", r"\frac{1}{10^{31}}"), (r"\frac{7^{900}-1}{7^{901}}", r"\frac17"),
        ("|x|", "x"), ("x^2", "x2"), (r"\pi", "3.14159265358979"), (r"\frac{1}{3000!}", r"\frac{1}{2999!}"),
        (r"\pi\cdot10^{-40}", r"\pi\cdot10^{-41}"), ("x_1", "x_2"), ("x", "x'"), ("2i", "2"), (r"-\infty", r"\infty"),
        ("9^{9^{9^{9}}}", "3"), ("9**9**9**9", "x"), ("(x+y+1)^{9999}", "x"), ("99999999!", "1"), ("204_5", "204"),
        (r"e^{\pi\sqrt{163}}", "262537412640768744"),
    ],
)  # fmt: skip
def test_different(first, second):
    assert formulas_equal(first, second) is False


@pytest.mark.parametrize(
    "text", ["", "three", "1 2", r"\int_0^1 x dx", "(", "5^+", r"\frac{1}{", "{" * 400, "-" * 300, "x" * 300, r"\sqrt"]
)
def test_what_is_no_formula_is_left_open(text):
    assert formulas_equal(text, "1") is None
    assert value_of(text) is None


def test_a_formula_without_a_value_is_left_open():
    assert formulas_equal(r"\frac{1}{0}", "1") is None
    assert formulas_equal("9^{9^{9^{9}}}", "9^{9^{9^{9}}}+1") is None


def test_floors_of_numbers_that_are_no_fractions():
    assert formulas_equal(r"\lfloor \pi \rfloor", "3") is True
    assert formulas_equal(r"\lceil \sqrt{2} \rceil", "2") is True
    assert formulas_equal(r"\lfloor \sqrt{2} \cdot \sqrt{2} \rfloor", "2") is True
    assert formulas_equal(r"\lfloor \sin x \rfloor", "5") is False
    assert value_of(r"\lfloor \infty \rfloor") is value_of(r"\lceil i \rceil") is None


def test_zero_to_a_huge_power_is_zero_at_once():
    assert value_of("0^{(10^{9})!}") == 0
    assert value_of(r"0^{-(10^{9})!}") is None


def test_equations():
    assert equations_equal(("y", "3x-1"), ("6x-2y", "2")) is True
    assert equations_equal(("x^2+y^2", "4"), (r"\frac{x^2}{4}+\frac{y^2}{4}", "1")) is True
    assert equations_equal(("y", "3x-1"), ("y", "3x+1")) is False


@given(st.text(alphabet="0123456789xyabe+-*/^!(){}[]_|.\\ fracsqtpilogn", max_size=80))
def test_any_text_takes_little_time(text):
    began = time.process_time()
    formulas_equal(text, "x")
    formulas_equal(text, "9^{9^9}")
    assert time.process_time() - began < 5
