"""The reward of the captioner's own answers."""

from __future__ import annotations

from racro_pl.reward.own_answer import OwnAnswers
from racro_pl.reward.unscored import GRADING_TIMED_OUT
from racro_pl.types import Question

QUESTION = Question("q", (), "<image>How many?", "42", "math")


def test_only_the_gold_answer_in_a_box_is_right():
    texts = [r"6 times 7, so \boxed{42.0}", r"\boxed{41}", "the answer is 42", "", r"\boxed{42} or \boxed{7}"]
    rewards = OwnAnswers().submit(QUESTION, texts).result()
    assert rewards.total == rewards.parts["correct"] == (1.0, 0.0, 0.0, 0.0, 0.0)
    assert rewards.parts["answered"] == (1.0, 1.0, 0.0, 0.0, 1.0)
    assert rewards.extracted == (("42.0",), ("41",), (None,), (None,), ("42, 7",))
    assert rewards.scored == (True,) * 5
    assert rewards.answers == ((),) * 5  # nobody was asked


def test_an_answer_that_could_not_be_graded_is_no_zero(monkeypatch):
    rewarder = OwnAnswers()
    monkeypatch.setattr(rewarder._grader, "grade", lambda answer, question: None if answer == "hard" else False)
    pending = rewarder.submit(QUESTION, [r"\boxed{hard}", r"\boxed{1}"])
    assert pending.result() is pending.result()
    assert pending.result().scored == (False, True)
    assert pending.result().reasons == (GRADING_TIMED_OUT, None)
    assert rewarder.drain_stats() == {"captions": 2.0, "unscored": 1.0}
    assert rewarder.drain_stats() == {"captions": 0.0, "unscored": 0.0}
