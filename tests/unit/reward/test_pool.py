import threading
import time

import pytest

from racro_pl.reward import HttpReasoner, ReasonerError, ReasonerPool
from tests.fakes.reasoner_server import FaultServer


def client(server, **more):
    settings = {"model": "tiny", "attempts": 1, "attempt_s": 3.0, "deadline_s": 6.0, "max_tokens": 8}
    return HttpReasoner(server.url if isinstance(server, FaultServer) else server, **(settings | more))


def prompts(count):
    return [[{"role": "user", "content": f"prompt {number}"}] for number in range(count)]


def texts(pool, count):
    return [future.result(20) for future in pool.submit(prompts(count))]


DOWN = "http://127.0.0.1:9"


def test_work_goes_to_the_least_busy_server():
    with FaultServer(delay_s=4.0) as slow, FaultServer() as fast:
        pool = ReasonerPool([client(slow, attempt_s=60.0, deadline_s=60.0), client(fast)])
        replies = []
        for _ in range(5):  # a few at a time: the slow one is busy with its share when the next ones come
            replies += pool.submit(prompts(2))
            end = time.monotonic() + 3
            while pool._endpoints[1].in_flight and time.monotonic() < end:
                time.sleep(0.01)
        assert all(future.result(60).text for future in replies)
        assert len(slow.chats) + len(fast.chats) == 10
        assert len(fast.chats) > len(slow.chats)
        pool.close()


@pytest.mark.parametrize("fault", ["500", "429 1", "hang", "drop", "garbage", "wrong model", "404", "redirect", "gzip"])
def test_prompts_of_a_failing_server_are_answered_by_the_other(fault):
    with FaultServer([fault]) as bad, FaultServer() as good:
        pool = ReasonerPool([client(bad), client(good)], probe_s=30.0)
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
        end = time.monotonic() + 10
        while pool._endpoints[0].away:
            assert time.monotonic() < end
            time.sleep(0.02)
        asked = len(bad.chats)
        assert all(reply.text for reply in texts(pool, 8))
        assert len(bad.chats) > asked
        pool.close()


def test_when_all_are_down_a_prompt_waits_for_one_until_its_deadline():
    with FaultServer(["500", "500", "ok"]) as one:
        pool = ReasonerPool([client(one), client(DOWN)], deadline_s=15.0, probe_s=0.2)
        assert texts(pool, 1)[0].text  # 500, refused; a round later 500, refused; then the answer
        pool.close()
    pool = ReasonerPool([client(DOWN), client(DOWN)], deadline_s=1.0, probe_s=0.2)
    start = time.monotonic()
    (reply,) = texts(pool, 1)
    assert "connection failed" in reply.error
    assert time.monotonic() - start < 5
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
        pool = ReasonerPool([client(server, attempt_s=60.0, deadline_s=60.0), client(DOWN)], probe_s=60.0)
        futures = pool.submit(prompts(3))
        time.sleep(0.3)
        pool.close()
        assert all(future.result(5).error for future in futures)
    end = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < end, threading.enumerate()
        time.sleep(0.05)


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
        pool = ReasonerPool([client(one), client(other)], deadline_s=60.0, probe_s=30.0)
        start = time.monotonic()
        (reply,) = texts(pool, 1)
        assert reply.kind == "bad response"
        assert time.monotonic() - start < 25  # no second round
        assert len(one.chats) + len(other.chats) == 2
        pool.close()


def test_the_pools_deadline_holds_for_a_prompt_that_waits_its_turn_at_a_server():
    with FaultServer(["hang"]) as server:
        pool = ReasonerPool([client(server, concurrency=1, attempt_s=60.0, deadline_s=60.0)], deadline_s=1.0)
        start = time.monotonic()
        replies = texts(pool, 5)
        assert time.monotonic() - start < 10
        assert {reply.kind for reply in replies} == {"timeout"}
        assert len(server.chats) == 1
        pool.close()


def test_a_probe_under_way_ends_with_close_and_a_reopened_pool_asks_every_server():
    before = threading.active_count()
    with FaultServer(["500", "hang"]) as bad, FaultServer() as good:
        pool = ReasonerPool([client(bad, attempt_s=60.0, deadline_s=60.0), client(good)], probe_s=0.05)
        assert all(reply.text for reply in texts(pool, 1))  # a second one would hang as the probe does
        end = time.monotonic() + 10
        while bad.in_flight == 0:  # the probe's
            assert time.monotonic() < end
            time.sleep(0.02)
        pool.close()
        end = time.monotonic() + 10
        while threading.active_count() > before + 2:  # the two servers' own
            assert time.monotonic() < end, threading.enumerate()
            time.sleep(0.05)
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
        start = time.monotonic()
        assert all(reply.text for reply in texts(pool, 4))
        assert time.monotonic() - start < 10
        pool.close()
