import pytest

from racro_pl.evaluation.outcomes import Judgement, Tools
from racro_pl.evaluation.verdicts import score_responses
from racro_pl.types import ImageRef, Question

QUESTION = Question("q", (ImageRef(data=b"x"),), "What?", "4", "math")


def rule(question, response, tools):
    """The response is its own answer; a dash is none."""
    found = None if response == "-" else response
    return Judgement(found, found == question.answer)


@pytest.mark.parametrize(
    ("responses", "winner"),
    [
        (["4"], "4"),
        (["3", "4", "4"], "4"),
        (["3", "3", "4"], "3"),
        (["3", "4"], "3"),  # of equal counts the first
        (["-", "-", "4"], "4"),  # no answer has no vote
        (["-", "-"], "-"),
        (["4 ", "3", "$4$"], "4 "),  # spelling does not split votes
        (["3", "1/2", "0.5"], "1/2"),  # nor does form
        (["3", "B", "b"], "B"),  # nor does the case of a letter
    ],
)
def test_the_majority_counts(responses, winner):
    verdict = score_responses(rule, QUESTION, responses, Tools(grader=None))
    assert verdict.response == winner


def test_no_response_is_no_verdict():
    assert score_responses(rule, QUESTION, [], Tools(grader=None)) is None
