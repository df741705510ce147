from collections.abc import Iterator

import pytest

from racro_pl.evaluation.asking import ask_all
from tests.fakes.reasoners import ScriptedReasoner


def prompts(count, drawn) -> Iterator:
    for number in range(count):
        drawn.append(number)
        yield number, [{"role": "user", "content": f"prompt {number}"}]


@pytest.mark.parametrize(("count", "window"), [(0, 4), (1, 1), (3, 8), (10, 4), (11, 3)])
def test_every_prompt_gets_its_own_reply_in_order(count, window):
    reasoner = ScriptedReasoner(lambda prompt: f"re: {prompt}")
    replies = list(ask_all(reasoner, prompts(count, []), window))
    assert [key for key, _ in replies] == list(range(count))
    assert [reply.text for _, reply in replies] == [f"re: prompt {number}" for number in range(count)]


def test_no_more_than_the_window_is_under_way():
    drawn = []
    replies = ask_all(ScriptedReasoner(lambda prompt: prompt), prompts(100, drawn), window=8)
    for done, _ in enumerate(replies):
        assert len(drawn) - done <= 8


def test_a_failed_prompt_is_its_own_error():
    reasoner = ScriptedReasoner(lambda prompt: None if "2" in prompt else prompt)
    replies = dict(ask_all(reasoner, prompts(4, []), 4))
    assert replies[2].error == "down: scripted"
    assert replies[3].text is not None
