"""The reward of texts that describe and then answer."""

from __future__ import annotations

import pytest

from racro_pl.reward.described_answer import DescribedAnswers, description_of
from racro_pl.reward.unscored import GRADING_TIMED_OUT
from racro_pl.types import Question, SettingError
from tests.fakes.reasoners import ScriptedReasoner

QUESTION = Question("q", (), "<image>What color?", "red", "text")


class Reader:
    """Right from descriptions that say red. Notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, prompt: str) -> str | None:
        described = prompt.split("### Question")[0]
        self.asked.append(described)
        if "silent" in described:
            return None
        return r"\boxed{red}" if "red" in described else r"\boxed{blue}"


@pytest.fixture
def reader():
    return Reader()


def test_the_answer_its_box_and_the_description_are_paid(reader):
    """R = 0.9 [answer right] + 0.1 [boxed] + 1.0 [the reasoner is right from the description]."""
    scorer = DescribedAnswers(ScriptedReasoner(reader), cache="off")
    texts = [
        r"it is red. \boxed{red}",  # 0.9 + 0.1 + 1
        r"it is red. \boxed{blue}",  # 0.1 + 1
        r"it is dark. \boxed{red}",  # 0.9 + 0.1
        "it is red.",  # 1: no box
        "it is dark.",  # 0
    ]
    rewards = scorer.submit(QUESTION, texts).result()
    assert rewards.total == pytest.approx((2.0, 1.1, 1.0, 1.0, 0.0))
    assert rewards.parts["correct"] == (1.0, 0.0, 1.0, 0.0, 0.0)
    assert rewards.parts["answered"] == (1.0, 1.0, 1.0, 0.0, 0.0)
    assert rewards.parts["described"] == (1.0, 1.0, 0.0, 1.0, 0.0)
    assert rewards.extracted == (("red",), ("blue",), ("red",), (None,), (None,))
    assert rewards.answers[1] == (r"\boxed{red}",)
    assert scorer.responses(texts, rewards)[0] == (texts[0],)  # what a benchmark scores is the text's own answer
    scorer.close()


def test_the_reader_sees_neither_box_nor_thoughts(reader):
    scorer = DescribedAnswers(ScriptedReasoner(reader), cache="off")
    texts = [r"<think>red</think> dark \boxed{red}. \boxed{red}", r"\boxed{red}"]
    rewards = scorer.submit(QUESTION, texts).result()
    assert rewards.parts["described"] == (0.0, 0.0)
    assert rewards.parts["empty"] == (0.0, 1.0)  # a box alone describes nothing: the reasoner is not asked
    assert rewards.total == pytest.approx((1.0, 1.0))
    assert len(reader.asked) == 1
    assert "red" not in reader.asked[0]
    assert description_of(r"a \boxed{1} b \boxed{2}") == "a "


@pytest.mark.parametrize("box", [r"\\boxed{red}", "boxed{red}", "<|begin_of_box|>red<|end_of_box|>"])
def test_the_reader_sees_no_box_of_another_form(reader, box):
    scorer = DescribedAnswers(ScriptedReasoner(reader), cache="off")
    rewards = scorer.submit(QUESTION, [f"it is dark. {box}"]).result()
    assert rewards.parts["correct"] == (1.0,)
    assert rewards.parts["described"] == (0.0,)


def test_the_weights_are_the_configurations(reader):
    scorer = DescribedAnswers(ScriptedReasoner(reader), answer=2.0, form=0.0, description=0.5, cache="off")
    assert scorer.submit(QUESTION, [r"red \boxed{red}", r"red \boxed{x}"]).result().total == (2.5, 0.5)
    with pytest.raises(SettingError, match=r"DescribedAnswers: form is -1; expected 0 or more"):
        DescribedAnswers(ScriptedReasoner(reader), form=-1)


def test_a_text_with_one_verdict_missing_has_no_score(reader, monkeypatch):
    scorer = DescribedAnswers(ScriptedReasoner(reader), cache="off")
    monkeypatch.setattr(scorer._own._grader, "grade", lambda answer, question: None if answer == "hard" else True)
    rewards = scorer.submit(QUESTION, [r"red \boxed{hard}", r"silent \boxed{red}", r"red \boxed{red}"]).result()
    assert rewards.scored == (False, False, True)
    assert rewards.total == (0.0, 0.0, 2.0)
    assert rewards.reasons[0] == GRADING_TIMED_OUT
    assert rewards.reasons[1]
    assert scorer.drain_stats()["unscored"] == 2
