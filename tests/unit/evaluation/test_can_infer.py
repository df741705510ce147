import pytest
from hypothesis import given
from hypothesis import strategies as st

from racro_pl.evaluation.scoring.can_infer import can_infer

FOUR = {"A": "10 cm", "B": "12 cm", "C": "14 cm", "D": "16 cm"}
WORDS = {"A": "the red ball", "B": "the blue cube"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        (r"The final answer is \boxed{B}", "B"),
        (r"It is maybe A or B, so \boxed{B}", None),  # two letters: left to the judge
        ("A triangle has area 12. So 12 centimetres", None),  # A stands first of seven words, not among the last four
        ("B", "B"), ("(C)", "C"), ("**D**", "D"), ("D.", "D"), ("So it must be C!", "C"),
        ("12 cm", "B"), ("It is 12 CM", "B"), ("10 cm and 12 cm", None),
        # Longer than twice all the options' texts together (2 x 20 = 40): their words no longer count.
        ("I measured both sides of it, and it is 12 cm", None),
        ("Z", "Z"), ("no option fits, Z", "Z"), ("", None), ("60", None),
        ("Cannot determine the answer", "Z"), ("I can't process this file.", "Z"),
        ("I'm sorry, but without the image provided, A", "Z"),
        ("Failed to obtain answer via API. B", None),
        ("A and B look alike, but the correct answer is **B** because of its shape", "B"),
        ("the answer is between three and four, which no option says", "B"),  # theirs: no word boundary
        ("E", None),
    ],
)  # fmt: skip
def test_which_option(answer, letter):
    assert can_infer(answer, FOUR) == letter


def test_letters_beyond_d_and_texts():
    six = dict(zip("ABCDEF", "123456", strict=True))
    assert can_infer("The answer is F", six) == "F"
    # The pattern "answer is" knows A to D only.
    assert can_infer("the answer is E, while A and B are not what was asked for here", six) is None
    assert can_infer("the blue cube, I think", WORDS) == "B"
    assert can_infer("anything", {}) is None


@given(st.text(max_size=300))
def test_any_text_gives_an_option_or_nothing(text):
    assert can_infer(text, FOUR) in (None, "Z", *FOUR)
