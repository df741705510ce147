"""Parsers of text from models: never an exception, never an age, and the laws that equality promises."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from racro_pl.text.answers import extract_answer, last_boxed, tagged_answer, unbox, visible_text
from racro_pl.text.captioner_prompt import IMAGE_TAG, PromptError, captioner_messages, tentative_messages
from racro_pl.text.choices import LETTERS, choice_letter, with_choices
from racro_pl.text.comparison import MAX_ASKED, answers_equal, quick_equal
from racro_pl.text.final_letter import final_letter
from racro_pl.text.final_value import final_value
from racro_pl.text.habits import goes_round, stated_answers, states_gold
from racro_pl.text.latex import normalize, strip_markup
from racro_pl.text.numbers import number_of_words, parse_number
from racro_pl.text.read_value import read_value
from racro_pl.text.reasoner_prompt import inert, joint_messages, reasoner_messages
from racro_pl.text.units import parse_unit, split_unit
from racro_pl.text.words import texts_equal

PIECES = [
    "\\boxed{", "{", "}", "\\", "\\{", "\\text{", "\\frac", "\\frac{", "\\sqrt", "$", "$$", "\\(", "\\left(", "(", ")",
    "[", "]", ",", ".", "%", "-", "+", "/", "^", "^2", "\\circ", "x", "x=", "A", "B.", "(C)", "the answer is ", "1",
    "12", "0.5", "1,234", " ", "\n", "cm", "square ", "degree", "yes", "π", "−", "²", "\\times 10^{", "<think>",
    "</think>", "\u2028", "\ud800", "٣", "Ⅷ", "½",
]  # fmt: skip
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=60)
ANY_TEXT = [
    visible_text, last_boxed, extract_answer, unbox, strip_markup, normalize, parse_number, number_of_words, read_value,
    split_unit, choice_letter, inert, goes_round, tagged_answer, final_letter, final_value, parse_unit,
]  # fmt: skip
NUMBERS = st.fractions(max_denominator=10**6).filter(lambda value: abs(value) < 10**12)


@given(HOSTILE, HOSTILE)
def test_nothing_raises(text, other):
    for parse in ANY_TEXT:
        parse(text)
    list(stated_answers(text))
    quick_equal(text, other)
    texts_equal(text, other)
    choice_letter(text, [other, text])
    with_choices(text, [other, text])
    for kind in ("math", "text", "choice"):
        states_gold(text, other, kind, [other])


@given(HOSTILE, HOSTILE)
def test_a_box_is_found_whatever_stands_around_it(before, after):
    inner = r"\frac{1}{2}"
    text = before.replace("\\", "").replace("{", "").replace("}", "") + rf"\boxed{{{inner}}}" + after.replace("\\", "")
    assert last_boxed(text) == inner


@given(HOSTILE)
def test_an_answer_is_what_stands_after_the_thoughts(text):
    assert extract_answer(f"<think>{text}</think>\\boxed{{7}}") == "7"
    assert extract_answer(f"{text}</think>no box") is None


@given(HOSTILE)
def test_equality_is_reflexive_where_there_is_an_answer(text):
    if len(text) <= 500 and normalize(text):
        assert quick_equal(text, text) is True


@given(HOSTILE, HOSTILE)
def test_equality_is_symmetric(first, second):
    assert quick_equal(first, second) == quick_equal(second, first)
    assert texts_equal(first, second) == texts_equal(second, first)


@given(NUMBERS, NUMBERS)
def test_numbers_are_equal_exactly_when_they_are(first, second):
    for a in (f"{first.numerator}/{first.denominator}", rf"\frac{{{first.numerator}}}{{{first.denominator}}}"):
        assert quick_equal(a, f"{first}") is True
        assert quick_equal(a, f"{second}") is (first == second)


@given(st.integers(-(10**15), 10**15))
def test_spellings_of_an_integer_are_equal(number):
    for spelling in (f"{number:,}", f"{number}.0", f"${number}$", rf"\text{{{number}}}", f"x = {number}", f"{number}."):
        assert quick_equal(spelling, str(number)) is True


@given(HOSTILE, HOSTILE)
def test_algebra_is_asked_a_few_times_at_most(first, second):
    asked = []
    answers_equal(first, second, lambda *pair: asked.append(pair))
    assert len(asked) <= MAX_ASKED


@given(HOSTILE, st.lists(st.text(max_size=10), max_size=30))
def test_a_letter_is_one_of_the_options(text, options):
    letter = choice_letter(text, options)
    assert letter is None or letter in LETTERS[: len(options) or 26]


@given(
    st.sampled_from(LETTERS[:5]), st.sampled_from(["{}", "({})", "{}.", "[{}]", r"\text{{{}}}", "${}$", "Answer: {}"])
)
def test_a_letter_is_read_in_every_dress(letter, dress):
    assert choice_letter(dress.format(letter), ["o1", "o2", "o3", "o4", "o5"]) == letter


@given(HOSTILE, st.integers(0, 3))
def test_prompts_hold_as_many_images_as_there_are_or_are_refused(text, images):
    for wording in (captioner_messages, tentative_messages):
        try:
            messages = wording(text + IMAGE_TAG, images)
        except PromptError:
            assert images != 1
            continue
        parts = messages[1]["content"]
        assert sum(part["type"] == "image" for part in parts) == images
        assert all(part["text"] for part in parts if part["type"] == "text")


@given(HOSTILE, HOSTILE, HOSTILE)
def test_reasoner_prompts_hold_every_part_once(question, caption, tentative):
    for messages in (reasoner_messages(question, caption), joint_messages(question, caption, tentative)):
        assert [message["role"] for message in messages] == ["system", "user"]
        assert messages[1]["content"].count("### The detailed caption of the provided image: ") == 1


@pytest.mark.parametrize(
    "piece",
    ["\\text{", "{", "}", "\\boxed{", "(", "\\frac{1}{", "1,", "1 ", " .", "(A", "\\left", "x=", "<think>", "<|", "9",
     "square ", "cm ", "the answer is ", "### Question: \n", "\\", "$", "A. ", "a b "],
)  # fmt: skip
def test_a_long_text_is_read_in_seconds(piece):
    # Coarse: what goes quadratic here takes minutes. Twice, because nesting may be closed or not.
    for text in (piece * (40_000 // len(piece)), piece * (20_000 // len(piece)) + "}" * 20_000):
        start = time.process_time()
        for parse in (extract_answer, unbox, choice_letter, inert, goes_round, read_value):
            parse(text)
        choice_letter(text, ["one", text])
        texts_equal(text, text + "x")
        quick_equal(text, text + "x")
        states_gold(text, "5", "math")
        states_gold(text, "A", "choice", ["one", "two"])
        assert time.process_time() - start < 10
