"""Rewards from a real reasoner: SmolLM2-135M behind a real vLLM server, greedy.

The model is a weak one: it answers in prose and boxes its answer only when the caption shows it how. So the captions
here write the number that the question asks for as LaTeX does in a scanned exercise, in a box. Measured over the 64
lengths 11 to 74: the right caption earns its reward @RIGHT@ times, the wrong and the silent one never.
"""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from racro_pl.reward import HttpReasoner, ReasonerError, Scorer
from racro_pl.reward.vllm_process import VllmServer
from racro_pl.types import Question, Rewards

pytestmark = pytest.mark.vllm

LENGTHS = range(11, 75)


def length_question(length: int) -> Question:
    text = "What is the length of side AB?"
    return Question(id=f"length-{length}", images=(), text=text, answer=str(length), answer_type="math")


def caption(length: int) -> str:
    return f"A drawing of a triangle. The length of side AB is \\boxed{{{length}}}"


def captions_for(length: int) -> list[str]:
    """The fact, another fact, and no fact."""
    return [caption(length), caption(length + 100), "A drawing of a triangle with thin black lines."]


def make_scorer(server: VllmServer, **options) -> Scorer:
    return Scorer(HttpReasoner(server.url, temperature=0.0, max_tokens=48, **options), cache="off")


@pytest.fixture
def scorer(vllm_server) -> Iterator[Scorer]:
    scorer = make_scorer(vllm_server, deadline_s=120.0)
    yield scorer
    scorer.close()


def score(scorer: Scorer, lengths) -> list[Rewards]:
    """Sends everything, then waits: a group's requests never wait for another group's answers."""
    pending = [scorer.submit(length_question(length), captions_for(length)) for length in lengths]
    return [rewards.result() for rewards in pending]


def test_health_and_model_name_check(vllm_server, scorer):
    scorer.check()
    scorer.reasoner.close()
    HttpReasoner(vllm_server.url, model="smollm2", max_tokens=48).check()
    with pytest.raises(ReasonerError, match=r"'smollm2'.*not 'another-model'"):
        HttpReasoner(vllm_server.url, model="another-model").check()


def test_right_captions_earn_the_reward_and_wrong_ones_do_not(scorer):
    rewards = score(scorer, LENGTHS[:20])
    assert all(all(group.scored) for group in rewards)
    right, wrong, silent = (sum(column) for column in zip(*(group.total for group in rewards), strict=True))
    assert right >= 18
    assert wrong == 0
    assert silent == 0
    # A zero is the verdict on an answer, not the lack of one: the wrong caption's number came back, in its box.
    assert sum(group.extracted[1][0] == str(length + 100) for group, length in zip(rewards, LENGTHS)) >= 18


def test_64_requests_in_flight(scorer):
    begin = time.monotonic()
    pending = [scorer.submit(length_question(length), [caption(length)]) for length in LENGTHS]
    rewards = [group.result() for group in pending]
    assert time.monotonic() - begin < 120
    assert [group.scored for group in rewards] == [(True,)] * 64
    assert sum(group.total[0] for group in rewards) >= 58


def test_server_killed_and_restarted_in_mid_step(vllm_server, scorer):
    expected = score(scorer, LENGTHS[:32])
    patient = make_scorer(vllm_server, deadline_s=240.0, attempts=15)
    hasty = make_scorer(vllm_server, deadline_s=20.0, attempts=2, backoff_s=0.1)
    try:
        pending = [patient.submit(length_question(length), captions_for(length)) for length in LENGTHS[:32]]
        first = pending[0].result()
        os.killpg(vllm_server.pid, signal.SIGKILL)
        # 96 requests were sent and 3 are known to be back: the others have lost their server.
        lost = score(hasty, LENGTHS[:32])
        vllm_server.restart()
        found = [group.result() for group in pending]
    finally:
        patient.close()
        hasty.close()
        if vllm_server.pid is None or vllm_server.poll() is not None:
            vllm_server.restart()

    # Within their deadline: asked again, and answered as if nothing had happened.
    assert found[0] == first
    assert [group.scored for group in found] == [(True,) * 3] * 32
    assert [group.total for group in found] == [group.total for group in expected]
    assert all(answers for group in found for answers in group.answers)
    # Out of attempts: no score, with the reason, and no answer made up.
    assert not any(any(group.scored) for group in lost)
    assert not any(answers for group in lost for answers in group.answers)
    kinds = {str(reason).partition(":")[0] for group in lost for reason in group.reasons}
    assert kinds <= {"connection failed", "server down", "timeout"}
