"""Rewards that a Python function gives."""

import pytest

from racro_pl.reward import FunctionReward
from racro_pl.types import ImageRef, Question, RacroError

QUESTION = Question("q", (ImageRef(data=b"x"),), "how many ?", answer="2", answer_type="math")


def test_numbers_are_rewards_and_none_is_no_score() -> None:
    reward = FunctionReward(lambda question, captions: [len(caption) * 0.5 for caption in captions[:-1]] + [None])
    rewards = reward.submit(QUESTION, ["a", "", "bcd"]).result()
    assert rewards.total == (0.5, 0.0, 0.0)
    assert rewards.scored == (True, True, False)
    assert rewards.reasons == (None, None, "no score: the reward function gave None")
    assert rewards.parts["correct"] == (1.0, 0.0, 0.0)
    assert reward.drain_stats() == {"captions": 3.0, "unscored": 1.0}
    assert reward.drain_stats() == {"captions": 0.0, "unscored": 0.0}


def test_the_function_is_called_once_and_not_before_rewards_are_needed() -> None:
    calls = []

    def count(question, captions):
        calls.append(captions)
        return [1.0] * len(captions)

    future = FunctionReward(count).submit(QUESTION, ["a", "b"])
    assert calls == []
    assert future.result() is future.result()
    assert calls == [["a", "b"]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "gave None; expected a list"),
        (0.5, "gave 0.5; expected a list"),
        ([1.0], "1 rewards for 2 captions"),
        ([1.0, float("nan")], "gave nan"),
        ([float("inf"), 0.0], "gave inf"),
        (["good", 1.0], "gave 'good'; expected a finite number"),
        ([1.0, [2.0]], r"gave \[2.0\]"),
        ([10**400, 0.0], "gave 1000"),
    ],
)
def test_rewards_that_are_none_are_refused(given, message) -> None:
    with pytest.raises(RacroError, match=message):
        FunctionReward(lambda question, captions: given).submit(QUESTION, ["a", "b"]).result()
