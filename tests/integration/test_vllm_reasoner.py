"""Rewards from a real reasoner: SmolLM2-135M behind a real vLLM server, greedy.

The model is a weak one: asked for colours, counts or areas it answers well, but in prose, and without a box there is no
answer to grade. It does copy a box that the caption shows. So the question here is what a page says, and the page says
it in a box. Measured over the 64 numbers 11 to 74, three times: the right caption earned its reward 64 times, the wrong
and the silent one never, and no answer changed with the order or the number of the requests in flight.
"""

import os
import signal
import time
from collections.abc import Iterator

import httpx
import pytest

from racro_pl.reward import HttpReasoner, ReasonerError, Scorer
from racro_pl.serving.vllm_process import VllmServer
from racro_pl.types import Question, Rewards

pytestmark = pytest.mark.vllm

NUMBERS = range(11, 75)


def page_question(number: int) -> Question:
    text = "What is the last line of the page?"
    return Question(id=f"page-{number}", images=(), text=text, answer=str(number), answer_type="math")


def caption(number: int) -> str:
    return f"A handwritten page whose first line is: Homework. Its last line is: \\boxed{{{number}}}"


def captions_for(number: int) -> list[str]:
    """The fact, another fact, and no fact."""
    return [caption(number), caption(number + 100), "A handwritten page whose first line is: Homework."]


def make_scorer(server: VllmServer, **options) -> Scorer:
    reasoner = HttpReasoner(server.url, model=server.served_model_name, temperature=0.0, max_tokens=48, **options)
    return Scorer(reasoner, cache="off")


@pytest.fixture
def scorer(vllm_server) -> Iterator[Scorer]:
    scorer = make_scorer(vllm_server, deadline_s=120.0)
    yield scorer
    scorer.close()


def score(scorer: Scorer, numbers) -> list[Rewards]:
    """Sends everything, then waits: a group's requests never wait for another group's answers."""
    pending = [scorer.submit(page_question(number), captions_for(number)) for number in numbers]
    return [rewards.result() for rewards in pending]


def test_health_and_model_name_check(vllm_server, scorer):
    scorer.check()
    HttpReasoner(vllm_server.url, max_tokens=48).check()  # finds out the name of the only model by itself
    with pytest.raises(ReasonerError, match=r"'smollm2'.*not 'another-model'"):
        HttpReasoner(vllm_server.url, model="another-model").check()


def test_right_captions_earn_the_reward_and_wrong_ones_do_not(scorer):
    rewards = score(scorer, NUMBERS[:20])
    assert all(all(group.scored) for group in rewards)
    right, wrong, silent = (sum(column) for column in zip(*(group.total for group in rewards), strict=True))
    assert right >= 18
    assert wrong == 0
    assert silent == 0
    # A zero is the verdict on an answer, not the lack of one: the wrong caption's number came back, in its box.
    boxed = [group.extracted[1][0] == str(number + 100) for number, group in zip(NUMBERS[:20], rewards, strict=True)]
    assert sum(boxed) >= 18


def test_64_requests_in_flight(scorer):
    begin = time.monotonic()
    pending = [scorer.submit(page_question(number), [caption(number)]) for number in NUMBERS]
    rewards = [group.result() for group in pending]
    assert time.monotonic() - begin < 120
    assert [group.scored for group in rewards] == [(True,)] * 64
    assert sum(group.total[0] for group in rewards) >= 58


def wait_until_running(server: VllmServer, requests: int) -> None:
    """Until the server says that it is working on so many requests at once."""
    end = time.monotonic() + 60
    while True:
        lines = httpx.get(f"{server.root}/metrics", timeout=30).text.splitlines()
        running = sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running"))
        if running >= requests:
            return
        assert time.monotonic() < end, f"never worked on {requests} requests at once; now on {running:g}"


def test_server_killed_and_restarted_in_mid_step(vllm_server, scorer):
    expected = score(scorer, NUMBERS[:32])
    patient = make_scorer(vllm_server, deadline_s=240.0, attempts=15, concurrency=96)
    hasty = make_scorer(vllm_server, deadline_s=20.0, attempts=2, backoff_s=0.1)
    try:
        pending = [patient.submit(page_question(number), captions_for(number)) for number in NUMBERS[:32]]
        wait_until_running(vllm_server, 64)
        os.killpg(vllm_server.pid, signal.SIGKILL)
        lost = score(hasty, NUMBERS[:32])
        vllm_server.stop()
        vllm_server.start()
        found = [group.result() for group in pending]
    finally:
        patient.close()
        hasty.close()
        if vllm_server.pid is None or vllm_server.poll() is not None:
            vllm_server.stop()
            vllm_server.start()

    # Within their deadline: asked again, and answered as if nothing had happened.
    assert [group.scored for group in found] == [(True,) * 3] * 32
    assert [group.total for group in found] == [group.total for group in expected]
    assert all(answers for group in found for answers in group.answers)
    # Out of attempts: no score, with the reason, and no answer made up.
    assert not any(any(group.scored) for group in lost)
    assert not any(answers for group in lost for answers in group.answers)
    kinds = {str(reason).partition(":")[0] for group in lost for reason in group.reasons}
    assert kinds <= {"connection failed", "server down", "timeout"}
