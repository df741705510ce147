"""The caption penalty by hand, and the judges that it asks."""

from __future__ import annotations

import pytest

from racro_pl.reward.caption_penalty import NO_VERDICT, CaptionJudge, CaptionPenalty, ReasonerJudge, RuleJudge
from racro_pl.reward.scorer import Scorer
from racro_pl.types import Question
from tests.fakes.reasoners import ScriptedReasoner
from tests.unit.text.labelled import labelled

QUESTION = Question("q", (), "<image>What color?", "red", "text")


class Says(CaptionJudge):
    """Verdicts from a table."""

    def __init__(self, **verdicts: bool | None) -> None:
        self.verdicts = verdicts

    def submit(self, question, texts):
        return lambda: [self.verdicts[text] for text in texts]


def answers(prompt: str) -> str | None:
    """Right from texts that begin with r, wrong from those with w; a failed call for others."""
    caption = prompt.split("provided image: ", 1)[1]
    return {"r": r"\boxed{red}", "w": r"\boxed{blue}"}.get(caption[0])


def penalised(judge: CaptionJudge, texts: list[str], penalty: float = 0.1, votes: int = 1, script=answers):
    rewarder = CaptionPenalty(Scorer(ScriptedReasoner(script), cache="off", votes=votes), judge, penalty)
    return rewarder, rewarder.submit(QUESTION, texts).result()


def test_only_right_answers_from_no_caption_pay():
    judge = Says(r_caption=True, r_solution=False, w_caption=True, w_solution=False)
    _, rewards = penalised(judge, ["r_caption", "r_solution", "w_caption", "w_solution"])
    assert rewards.total == (1.0, 0.9, 0.0, 0.0)  # 1 - .1 * 1; a wrong answer has nothing to lose
    assert rewards.parts["correct"] == (1.0, 1.0, 0.0, 0.0)
    assert rewards.parts["has_caption"] == (1.0, 0.0, 1.0, 0.0)
    assert rewards.parts["penalty"] == (0.0, 0.1, 0.0, 0.0)
    stats = penalised(judge, ["r_caption", "w_solution"])[0].drain_stats()
    assert (stats["captions"], stats["judged"], stats["without_caption"]) == (2.0, 2.0, 1.0)


def test_with_votes_the_penalty_follows_the_share_of_right_ones():
    replies = iter([r"\boxed{red}", r"\boxed{blue}", r"\boxed{red}", r"\boxed{red}"])
    _, rewards = penalised(Says(x=False), ["x"], penalty=0.2, votes=4, script=lambda _: next(replies))
    assert rewards.total[0] == pytest.approx(0.75 - 0.2 * 0.75)


def test_a_missing_verdict_costs_the_score_only_where_it_matters():
    rewarder, rewards = penalised(Says(right=None, wrong=None, failed=False), ["right", "wrong", "failed"])
    assert rewards.scored == (False, True, False)
    assert rewards.reasons[0] == NO_VERDICT
    assert rewards.reasons[1] is None
    assert rewards.reasons[2].startswith("down")  # the reasoner's own failure keeps its reason
    assert rewards.total[1] == 0.0
    assert rewarder.drain_stats()["unscored"] == 2.0


def test_the_reasoner_is_asked_once_for_equal_texts_and_never_for_empty_ones():
    asked = []

    def script(prompt: str) -> str | None:
        asked.append(prompt)
        return None if "broken" in prompt else "<think>No...</think> Yes" if "circle" in prompt else "hm"

    judge = ReasonerJudge(ScriptedReasoner(script))
    verdicts = judge.submit(QUESTION, ["a circle", "  ", "a circle", "what", "broken"])()
    assert verdicts == [True, False, True, None, None]
    assert len(asked) == 3
    assert all("<image>" not in prompt for prompt in asked)


def test_a_judge_that_knows_agrees_with_every_label():
    """The reasoner's verdicts are read and carried to the right texts: an oracle behind the real prompt."""
    truth = {row["text"]: row["has_caption"] for row in labelled()}

    def oracle(prompt: str) -> str:
        text = prompt.rsplit("\nText: ", 1)[1].removesuffix("\nDoes the text describe the image?")
        return "Yes." if truth[text] else "No."

    judge = ReasonerJudge(ScriptedReasoner(oracle))
    for row in labelled():
        question = Question("q", (), row["question"], "", "text")
        assert judge.submit(question, [row["text"]])() == [row["has_caption"]]


def test_the_rule_judges_without_anybody():
    assert RuleJudge().submit(QUESTION, ["The image shows a red circle.", "So it is red."])() == [True, False]
