import threading
import time
from collections.abc import Callable

import pytest

from racro_pl.reward import HttpReasoner, ReasonerError, ReasonerPool
from tests.fakes.reasoner_server import FaultServer

PATIENT_S = 100.0
"""For what happens sooner or later on a machine with more to do."""


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENT_S
    while not condition():
        assert time.monotonic() < end, threading.enumerate()
        time.sleep(0.01)


def client(server, **more):
    settings = {"model": "tiny", "attempts": 1, "attempt_s": PATIENT_S, "deadline_s": PATIENT_S, "max_tokens": 8}
    return HttpReasoner(server.url if isinstance(server, FaultServer) else server, **(settings | more))


def prompts(count):
    return [[{"role": "user", "content": f"prompt {number}"}] for number in range(count)]


def texts(pool, count):
    return [future.result(2 * PATIENT_S) for future in pool.submit(prompts(count))]


DOWN = "http://127.0.0.1:9"


def test_work_goes_to_the_least_busy_server():
    with FaultServer(["hang"]) as slow, FaultServer() as fast:
        pool = ReasonerPool([client(slow), client(fast)])
        replies = []
        for _ in range(5):  # a few at a time: the slow one is busy with its share when the next ones come
            replies += pool.submit(prompts(2))
            wait_until(lambda: not pool._endpoints[1].in_flight)
        wait_until(lambda: sum(future.done() for future in replies) == len(fast.chats))
        assert all(future.result().text for future in replies if future.done())
        assert 10 > len(fast.chats) > 5
        pool.close()


def test_idle_servers_take_turns():
    with FaultServer() as one, FaultServer() as other:
        pool = ReasonerPool([client(one), client(other)])
        assert all(texts(pool, 1)[0].text for _ in range(4))
        assert len(one.chats) == len(other.chats) == 2
        pool.close()


@pytest.mark.parametrize("fault", ["500", "429 1", "hang", "drop", "garbage", "wrong model", "404", "redirect", "gzip"])
def test_prompts_of_a_failing_server_are_answered_by_the_other(fault):
    with FaultServer([fault]) as bad, FaultServer() as good:
        limit_s = 1.0 if fault == "hang" else PATIENT_S
        pool = ReasonerPool([client(bad, attempt_s=limit_s), client(good)], probe_s=1000.0)
        script, bad.script = bad.script, ["ok"]
        pool.check()
        bad.script = script
        assert all(reply.text for reply in texts(pool, 8))
        asked = len(bad.chats)
        assert all(reply.text for reply in texts(pool, 8))
        assert len(bad.chats) == asked  # set aside: not asked again
        pool.close()


def test_a_server_that_comes_back_is_used_again():
    with FaultServer(["500", "ok"]) as bad, FaultServer() as good:
        pool = ReasonerPool([client(bad), client(good)], probe_s=0.2)
        assert all(reply.text for reply in texts(pool, 4))
        wait_until(lambda: not pool._endpoints[0].away)
        asked = len(bad.chats)
        assert all(reply.text for reply in texts(pool, 8))
        assert len(bad.chats) > asked
        pool.close()


def test_when_all_are_down_a_prompt_waits_for_one_until_its_deadline():
    with FaultServer(["500", "500", "ok"]) as one:
        pool = ReasonerPool([client(one), client(DOWN)], deadline_s=PATIENT_S, probe_s=0.2)
        assert texts(pool, 1)[0].text  # 500, refused; a round later 500, refused; then the answer
        pool.close()
    pool = ReasonerPool([client(DOWN), client(DOWN)], deadline_s=2.0, probe_s=0.2)
    (reply,) = texts(pool, 1)
    assert "connection failed" in reply.error
    pool.close()


def test_a_fault_of_the_prompt_stays_its_own():
    with FaultServer(["400"]) as one, FaultServer() as other:
        pool = ReasonerPool([client(one), client(other)])
        replies = texts(pool, 2)
        assert sorted(reply.error is None for reply in replies) == [False, True]
        assert not pool._endpoints[0].away
        pool.close()


def test_close_ends_everything_and_leaves_no_thread():
    before = threading.active_count()
    with FaultServer(["hang"]) as server:
        pool = ReasonerPool([client(server), client(DOWN)], probe_s=1000.0)
        futures = pool.submit(prompts(3))
        wait_until(lambda: server.in_flight == 3 and pool._endpoints[1].away)
        pool.close()
        assert all(future.result(PATIENT_S).error for future in futures)
    wait_until(lambda: threading.active_count() <= before)


def test_a_prompt_on_its_way_to_a_server_as_the_pool_is_closed_ends_and_leaves_nothing_open(monkeypatch):
    before = threading.active_count()
    with FaultServer(["hang"]) as server:
        reasoner = client(server, deadline_s=10 * PATIENT_S, attempt_s=10 * PATIENT_S)
        pool = ReasonerPool([reasoner], deadline_s=10 * PATIENT_S)
        submit, replies = reasoner.submit, []

        def close_between(*arguments):
            pool.close()
            return submit(*arguments)

        monkeypatch.setattr(reasoner, "submit", close_between)
        replies = pool.submit(prompts(1))
        assert replies[0].result(PATIENT_S).kind == "closed"
        wait_until(lambda: reasoner._session is None)
    wait_until(lambda: threading.active_count() <= before)


def test_a_prompt_that_finds_its_servers_loop_closed_ends(monkeypatch):
    reasoner = client(DOWN)
    pool = ReasonerPool([reasoner])

    def refuse(*_):
        raise RuntimeError("Event loop is closed")

    monkeypatch.setattr(reasoner, "submit", refuse)
    with pytest.raises(RuntimeError):  # the pool is open: a bug, to be seen
        pool.submit(prompts(1))
    monkeypatch.setattr(reasoner, "submit", lambda *_: (pool.close(), refuse()))
    assert pool.submit(prompts(1))[0].result(PATIENT_S).kind == "closed"


def test_a_probe_under_way_as_the_pool_is_closed_leaves_nothing_open(monkeypatch):
    before = threading.active_count()
    with FaultServer(["500"]) as server:
        reasoner = client(server)
        pool = ReasonerPool([reasoner, client(DOWN)], probe_s=0.01)
        check, closed = reasoner.check, threading.Event()

        def close_between():
            pool.close()
            closed.set()
            check()

        monkeypatch.setattr(reasoner, "check", close_between)
        replies = pool.submit(prompts(1))
        assert closed.wait(PATIENT_S)
        assert replies[0].result(PATIENT_S).error
    wait_until(lambda: threading.active_count() <= before)


@pytest.mark.usefixtures("quick_refusal")
def test_check_needs_one_server_and_one_model():
    with FaultServer() as good, FaultServer(models=["other"]) as other:
        pool = ReasonerPool([client(good), client(DOWN)])
        pool.check()
        assert pool._endpoints[1].away
        pool.close()
        with pytest.raises(ReasonerError, match="servers differ"):
            ReasonerPool([client(good), client(other, model="other")]).check()
    with pytest.raises(ReasonerError, match="no server of the pool"):
        ReasonerPool([client(DOWN)]).check()


def test_nonsense_from_every_server_is_not_asked_for_again_and_again():
    with FaultServer(["garbage"]) as one, FaultServer(["garbage"]) as other:
        pool = ReasonerPool([client(one), client(other)], deadline_s=PATIENT_S, probe_s=0.1)
        (reply,) = texts(pool, 1)
        assert reply.kind == "bad response"
        asked = [chat["messages"] for chat in one.chats + other.chats]
        assert asked.count(prompts(1)[0]) == 2  # no second round; the rest are probes
        pool.close()


def test_the_pools_deadline_holds_for_a_prompt_that_waits_its_turn_at_a_server():
    with FaultServer(["hang"]) as server:
        pool = ReasonerPool([client(server, concurrency=1, attempt_s=1000.0, deadline_s=1000.0)], deadline_s=1.0)
        replies = [future.result(PATIENT_S) for future in pool.submit(prompts(5))]
        assert {reply.kind for reply in replies} == {"timeout"}
        assert len(server.chats) <= 1
        pool.close()


def test_a_probe_under_way_ends_with_close_and_a_reopened_pool_asks_every_server():
    before = threading.active_count()
    with FaultServer(["500", "hang"]) as bad, FaultServer() as good:
        pool = ReasonerPool([client(bad), client(good)], probe_s=0.05)
        assert all(reply.text for reply in texts(pool, 1))  # a second one would hang as the probe does
        wait_until(lambda: bad.in_flight > 0)  # the probe's
        pool.close()
        wait_until(lambda: threading.active_count() <= before + 2)  # the two servers' own
        bad.script = ["ok"]
        asked = len(bad.chats)
        assert all(reply.text for reply in texts(pool, 8))
        assert len(bad.chats) > asked
        pool.close()


def test_a_server_that_was_away_at_the_start_is_not_asked_for_its_models_name():
    with FaultServer() as good, FaultServer() as late:
        late.go_away()
        pool = ReasonerPool([client(good), client(late, model=None)], probe_s=60.0)
        pool.check()
        late.come_back()
        late.listing = "hang"
        assert all(reply.text for reply in texts(pool, 4))
        assert len(late.headers) == len(late.chats)  # no request was for the list of models, which would hang
        pool.close()
