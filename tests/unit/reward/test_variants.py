"""Rewards other than the plain one: what a caption adds, and what several readers make of it."""

from __future__ import annotations

import pytest
from jsonargparse import ArgumentParser

from racro_pl.reward.gain import GainScorer
from racro_pl.reward.reasoner import ReasonerError
from racro_pl.reward.scorer import Scorer
from racro_pl.reward.several import SeveralReasoners
from racro_pl.types import Question
from tests.fakes.reasoners import ScriptedReasoner

RIGHT, WRONG = r"\boxed{red}", r"\boxed{blue}"


def question(name: str) -> Question:
    return Question(name, (), f"<image>{name}: what color?", "red", "text")


class Named(ScriptedReasoner):
    """A scripted reasoner with a name of its own."""

    def __init__(self, name: str, script) -> None:
        super().__init__(script)
        self.name = name

    @property
    def identity(self) -> str:
        return self.name


# ---------------------------------------------------------------------- gain


class Reader:
    """Right from captions that say red; without a caption as ``blind`` has it. Notes what it was asked."""

    def __init__(self, *blind: str | None) -> None:
        self.blind = list(blind)
        self.asked: list[str] = []

    def __call__(self, prompt: str) -> str | None:
        self.asked.append(prompt)
        if "### The detailed caption" not in prompt:
            return self.blind.pop(0)
        return RIGHT if "red" in prompt.split("### Question")[0] else WRONG


def test_a_caption_is_worth_what_it_adds():
    """b = 0: c. b = 1: nothing. b = 1/2 (two votes): half."""
    reader = Reader(WRONG, RIGHT)
    scorer = GainScorer(ScriptedReasoner(reader), cache="off")
    needed = scorer.submit(question("needed"), ["red", "dark"]).result()
    assert needed.total == (1.0, 0.0)
    assert needed.parts["gain"] == (1.0, 0.0)
    known = scorer.submit(question("known"), ["red", "dark"]).result()
    assert known.total == (0.0, 0.0)
    assert known.parts["without_caption"] == (1.0, 1.0)
    assert known.parts["gain"] == (0.0, -1.0)
    half = GainScorer(ScriptedReasoner(Reader(WRONG, RIGHT)), cache="off", votes=2)
    rewards = half.submit(question("half"), ["red", "dark"]).result()
    assert (rewards.total, rewards.parts["gain"]) == ((0.5, 0.0), (0.5, -0.5))
    assert rewards.parts["correct"] == (1.0, 0.0)  # accuracies stay accuracies


def test_a_question_is_asked_without_a_caption_once():
    reader = Reader(WRONG)
    scorer = GainScorer(ScriptedReasoner(reader), cache="off")
    for _ in range(3):
        scorer.submit(question("q"), ["red", "dark"]).result()
    alone = [prompt for prompt in reader.asked if "caption" not in prompt]
    assert alone == ["q: what color?\n\n### Please think step by step. The final answer MUST BE put in \\boxed{}."]
    stats = scorer.drain_stats()
    assert (stats["captions"], stats["requests"]) == (6.0, 7.0)


def test_an_unknown_base_is_no_score_and_is_asked_again():
    scorer = GainScorer(ScriptedReasoner(Reader(None, WRONG)), cache="off")
    rewards = scorer.submit(question("q"), ["red", "dark"]).result()
    assert rewards.scored == (False, False)
    assert rewards.reasons == ("without caption: down: scripted",) * 2
    stats = scorer.drain_stats()
    assert stats["unscored"] == stats["unscored/without caption"] == 2
    assert scorer.submit(question("q"), ["red", "dark"]).result().total == (1.0, 0.0)


# ---------------------------------------------------------------------- several


def reads(*words: str):
    """Right from captions with all of these words; a failed call for the word "cut"."""

    def script(prompt: str) -> str | None:
        caption = prompt.split("provided image: ", 1)[1].split("###")[0]
        return None if "cut" in caption and "a" in words else RIGHT if all(word in caption for word in words) else WRONG

    return script


@pytest.mark.parametrize(("combine", "totals"), [("mean", (1.0, 0.5, 0.0)), ("minimum", (1.0, 0.0, 0.0))])
def test_several_readers(combine, totals):
    reasoners = [Named("one", reads("a")), Named("two", reads("b"))]
    scorer = SeveralReasoners(reasoners, combine, cache="off")
    rewards = scorer.submit(question("q"), ["a b", "b", "c", "b cut", ""]).result()
    assert rewards.total[:3] == rewards.parts["correct"][:3] == totals
    assert rewards.parts["correct/1"][:3] == (1.0, 0.0, 0.0)
    assert rewards.parts["correct/2"][:3] == (1.0, 1.0, 0.0)
    # The first reader failed on "cut": what the second says alone is no score.
    assert rewards.scored == (True, True, True, False, True)
    assert rewards.reasons[3] == "down: scripted"
    assert rewards.total[3] == 0.0
    assert rewards.parts["empty"][4] == 1.0
    assert rewards.answers[0] == (RIGHT, RIGHT)
    assert rewards.extracted[1] == ("blue", "red")
    stats = scorer.drain_stats()
    assert (stats["captions"], stats["requests"], stats["unscored"]) == (5.0, 8.0, 1.0)


def test_every_reader_must_be_up():
    down = Named("two", reads("b"))
    down.up = False
    with pytest.raises(ReasonerError, match="down"):
        SeveralReasoners([Named("one", reads("a")), down], cache="off").check()


def test_too_few_or_equal_readers_are_refused():
    one = Named("one", reads("a"))
    with pytest.raises(ValueError, match="two or more"):
        SeveralReasoners([one])
    with pytest.raises(ValueError, match="the same reasoner twice"):
        SeveralReasoners([one, Named("one", reads("b"))])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("GainScorer", {"reasoner": {"class_path": "racro_pl.reward.InProcessReasoner", "init_args": {"path": "x"}}}),
        (
            "SeveralReasoners",
            {
                "combine": "minimum",
                "reasoners": [
                    {"class_path": "racro_pl.reward.InProcessReasoner", "init_args": {"path": path}} for path in "xy"
                ],
            },
        ),
    ],
)
def test_they_are_built_from_yaml_where_a_scorer_is_expected(kind, settings):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--reward", type=Scorer | None)
    init = settings | {"votes": 3, "cache": "off", "max_unscored_share": 0.25}
    config = parser.parse_object({"reward": {"class_path": f"racro_pl.reward.{kind}", "init_args": init}})
    scorer = parser.instantiate_classes(config).reward
    assert type(scorer).__name__ == kind
    assert (scorer.votes, scorer.max_unscored_share) == (3, 0.25)
