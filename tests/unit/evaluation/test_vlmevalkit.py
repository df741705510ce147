import time
from math import pi

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from racro_pl.evaluation.outcomes import Judgement, Tools
from racro_pl.evaluation.scoring import vlmevalkit
from racro_pl.evaluation.scoring.judge import HttpJudge
from racro_pl.types import Question
from tests.fakes.reasoner_server import FaultServer
from tests.unit.evaluation.test_strict import HOSTILE

SIZES = ("10 cm", "12 cm", "14 cm", "16 cm")
LONG = "A is not it, nor is B; I would have to think for much longer about all of the four options before I say one"


class ScriptedJudge:
    """Gives its replies in turn, then nothing."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.asked = []

    def ask(self, prompt, sample=0):
        self.asked.append((prompt, sample))
        return self.replies.pop(0) if self.replies else None


def choice(gold="B", choices=SIZES, **metadata):
    return Question("q", (), "How long?", gold, "choice", choices, metadata=metadata)


def math(gold, **metadata):
    return Question("q", (), "How long?", gold, "math", metadata=metadata)


def text(gold, **metadata):
    return Question("q", (), "What kind?", gold, "text", metadata=metadata)


@pytest.mark.parametrize("rule", [vlmevalkit.mathvista, vlmevalkit.mathvision, vlmevalkit.mmmu, vlmevalkit.wemath])
def test_choices_by_can_infer_else_by_the_judge(grader, rule):
    alone = Tools(grader)
    assert rule(choice(), r"so \boxed{B}", alone) == Judgement("B", True)
    assert rule(choice(), r"so \boxed{C}", alone) == Judgement("C", False)
    assert rule(choice(), LONG, alone) == Judgement(None, False)
    judge = ScriptedJudge("B")
    assert rule(choice(), LONG, Tools(grader, judge)) == Judgement("B", True)
    assert "How long?" in judge.asked[0][0]
    assert LONG in judge.asked[0][0]
    # What can_infer settles, right or wrong, is not asked about.
    judge = ScriptedJudge("B")
    assert rule(choice(), "C", Tools(grader, judge)) == Judgement("C", False)
    assert judge.asked == []


@pytest.mark.parametrize(
    ("kind", "gold", "response", "correct"),
    [
        ("integer", "14", "14", True), ("integer", "14", " 14 ", True), ("integer", "14", "14.0", False),
        ("float", "1.2", "1.20", True), ("float", "1.2", "1.21", False), ("integer", "14", "14 cm", False),
        ("list", "[0, 2]", "[0, 2]", False),  # theirs compares it with None
    ],
)  # fmt: skip
def test_mathvista_numbers(grader, kind, gold, response, correct):
    judgement = vlmevalkit.mathvista(math(gold, answer_type=kind), response, Tools(grader))
    assert judgement.correct is correct
    assert (judgement.extracted is None) is not correct  # a wrong number is left to the judge


def test_the_judge_is_asked_again_until_it_says_something(grader):
    judge = ScriptedJudge(None, "", "14")
    question = math("14", answer_type="integer")
    assert vlmevalkit.mathvista(question, "It is 14 cm.", Tools(grader, judge)) == Judgement("14", True)
    assert [sample for _, sample in judge.asked] == [0, 1, 2]
    silent = ScriptedJudge()
    assert vlmevalkit.mathvista(question, "It is 14 cm.", Tools(grader, silent)) == Judgement(None, False)
    assert len(silent.asked) == 5


@pytest.mark.parametrize(
    ("gold", "response", "correct"),
    [
        ("60", "60", True), ("60", "60.0", True), (r"\frac{1}{2}", "0.5", True), ("0.3333333", r"\frac{1}{3}", True),
        ("0.33", r"\frac{1}{3}", False), ("x+1", "1+x", True), ("60", "The answer is 60", False), ("60", "", False),
    ],
)  # fmt: skip
def test_mathvision_formulas(grader, gold, response, correct):
    assert vlmevalkit.mathvision(math(gold), response, Tools(grader)).correct is correct


def test_mathverse_is_the_judges(grader):
    question = math("50", question_for_eval="How long in cm?")
    assert vlmevalkit.mathverse(question, "50", Tools(grader)) == Judgement(None, False)
    assert vlmevalkit.mathverse(question, "It is 50.", Tools(grader, ScriptedJudge("50"))) == Judgement("50", True)
    judge = ScriptedJudge("0.5 m", "1")
    assert vlmevalkit.mathverse(question, "It is 0.5 m.", Tools(grader, judge)) == Judgement("0.5 m", True)
    assert "How long in cm?" in judge.asked[1][0]
    judge = ScriptedJudge("60", "hm", "0")
    assert vlmevalkit.mathverse(question, "It is 60.", Tools(grader, judge)) == Judgement("60", False)


def test_mmmu_open_questions_are_two_options(grader):
    tools = Tools(grader)
    assert vlmevalkit.mmmu(math("Monday"), "monday", tools) == Judgement("A", True)
    assert vlmevalkit.mmmu(math("Monday"), "A", tools).correct  # theirs: a stray letter counts
    assert vlmevalkit.mmmu(math("Monday"), "Tuesday", tools) == Judgement(None, False)  # theirs: a random option
    judge = ScriptedJudge("I am not sure", "or maybe", "still not", "A")
    assert vlmevalkit.mmmu(math("Monday"), "Tuesday", Tools(grader, judge)) == Judgement(None, False)
    assert len(judge.asked) == 3


@pytest.mark.parametrize(
    ("question", "response", "extracted", "correct"),
    [
        (choice("A", ()), r"so \boxed{A}", "A", True),  # '{A}' holds one of A to E
        (choice("B", ()), r"\frac{1}{2} then \boxed{B}", None, False),  # '{1}{2} then boxed{B}' holds B, D, E
        (math("3.142"), r"\boxed{3.142}", None, False),  # '{3.142}' is no number
        (text("even"), r"\boxed{even}", "{even}", False),
        (math("3.142"), '{"solution": "...", "short answer": "3.1415"}', "3.1415", True),  # |3.1415 - 3.142| = 0.0005
        (math("3.142"), '```json\n{"short answer": "π"}\n```', repr(pi), True),
        (math("7"), "7", "7.0", True), (math("7"), "7.1 cm", "7.1", False), (math("7"), "about 7", None, False),
        (text("even"), '{"short answer": "Even"}', "Even", True), (text("even"), "", None, False),
        (choice("B", ()), "(B) A", "B", True),  # two letters, the gold one among the first three characters
        (choice("C", ()), '{"short answer": "c"}', "C", True), (math("7"), '{"short answer": 7}', None, False),
    ],
)  # fmt: skip
def test_dynamath(grader, question, response, extracted, correct):
    assert vlmevalkit.dynamath(question, response, Tools(grader)) == Judgement(extracted, correct)


def test_dynamath_with_a_judge(grader):
    judge = ScriptedJudge("3.142")
    assert vlmevalkit.dynamath(math("3.142"), r"\boxed{3.142}", Tools(grader, judge)).correct
    assert "decimal" in judge.asked[0][0]


def test_logicvista_is_the_judges(grader):
    question = text("A, C")
    assert vlmevalkit.logicvista(question, "A, C", Tools(grader)) == Judgement(None, False)
    assert vlmevalkit.logicvista(question, "both", Tools(grader, ScriptedJudge("A and C", "CA"))) == Judgement(
        "CA", True
    )
    assert not vlmevalkit.logicvista(question, "A", Tools(grader, ScriptedJudge("A"))).correct
    assert vlmevalkit.logicvista(question, "?", Tools(grader, ScriptedJudge("Z"))) == Judgement("Z", False)


def test_a_judge_behind_a_server_samples_its_further_attempts():
    with FaultServer(answer=lambda messages: "<think>hm</think> B ") as server:
        judge = HttpJudge(server.url)
        try:
            judge.check()
            assert judge.ask("Which?") == "B"
            assert judge.ask("Which?", sample=1) == "B"
            assert judge.ask("Which?", sample=9) == "B"
        finally:
            judge.close()
    temperatures = [request["temperature"] for request in server.chats]
    assert temperatures[-3:] == [0, 0.5, 2.0]


RULES = [
    (vlmevalkit.mathvista, choice()), (vlmevalkit.mathvista, math("14", answer_type="integer")),
    (vlmevalkit.mathvista, math("1.4", answer_type="float")), (vlmevalkit.mathvision, math("14")),
    (vlmevalkit.mathvision, math("x+1")), (vlmevalkit.mathverse, math("14")), (vlmevalkit.mmmu, math("14")),
    (vlmevalkit.wemath, choice()), (vlmevalkit.dynamath, math("0.5")), (vlmevalkit.dynamath, choice("A", ())),
    (vlmevalkit.dynamath, text("even")), (vlmevalkit.logicvista, text("A, C")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "question"), RULES)
@given(response=st.one_of(st.text(max_size=200), st.text(alphabet='0123ABC(){}[],.=\\/$ "shortanwe:πx+', max_size=60)))
@settings(max_examples=30)
def test_no_text_makes_a_rule_fail(hasty_tools, rule, question, response):
    judgement = rule(question, response, Tools(hasty_tools.grader, ScriptedJudge(response, response)))
    assert not (judgement.correct and judgement.extracted is None)


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_bounded(hasty_tools, name):
    began = time.process_time()  # this process's: the worker has a limit of its own
    for rule, question in RULES:
        rule(question, HOSTILE[name], hasty_tools)
    assert time.process_time() - began < 30
