"""What counts as answering, as an empty caption, as going round in circles."""

from __future__ import annotations

import pytest

from racro_pl.text.habits import goes_round, stated_answers, states_answer, states_gold


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("A circle of radius 5.", []),
        ("So the answer is 5.", ["5"]),
        ("The final answer: 5 cm; the rest is blank.", ["5 cm"]),
        ("Answer: \\boxed{\\frac12}", ["\\frac12", "\\boxed{\\frac12}"]),
        ("The correct option is (B).", ["(B)"]),
        ("Five dots. <|begin_of_box|>5<|end_of_box|>", ["5"]),
        ("the answer is 3.5", ["3.5"]),
        ("The answer is unclear\nand 7 is drawn", ["unclear"]),
        ("The choice is", []),
    ],
)
def test_stated_answers(caption, said):
    assert list(stated_answers(caption)) == said
    assert states_answer(caption) == bool(said)


@pytest.mark.parametrize(
    ("caption", "gold", "kind", "choices", "states"),
    [
        ("The answer is 5.", "5", "math", (), True),
        ("The answer is 5 cm.", "5", "math", (), True),
        ("\\boxed{0.5}", "\\frac12", "math", (), True),
        # The value in passing is a description.
        ("The side is 5.", "5", "math", (), False),
        ("The answer is 6.", "5", "math", (), False),
        ("The answer is B.", "B", "choice", ("one", "two"), True),
        ("The answer is two.", "B", "choice", ("one", "two"), True),
        ("The answer is A.", "B", "choice", ("one", "two"), False),
        ("Answer: Red", "red", "text", (), True),
        ("", "5", "math", (), False),
    ],
)
def test_states_gold(caption, gold, kind, choices, states):
    assert states_gold(caption, gold, kind, choices) == states


@pytest.mark.parametrize(
    ("caption", "loops"),
    [
        ("", False),
        ("A red square above a blue circle.", False),
        ("no no no", False),
        ("no " * 12, True),
        ("." * 12, True),
        ("the line AB meets the line CD. " * 4, True),
        ("the line AB meets the line CD. " * 3, False),
        ("Some words first: " + "x = 1, " * 6 + "and some after.", True),
        # A table repeats its frame, not its content.
        ("row 1: 5\nrow 2: 6\nrow 3: 7\nrow 4: 8\nrow 5: 9", False),
    ],
)
def test_goes_round(caption, loops):
    assert goes_round(caption) == loops


def test_long_captions_are_cheap():
    # Every period is compared and none repeats four times: the slowest kind of text.
    assert not goes_round(" ".join(str(index % 997) for index in range(100_000)))
    assert not states_gold("the answer is " * 20_000, "5", "math")
