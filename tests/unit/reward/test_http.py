import threading
import time

import psutil
import pytest

from racro_pl.reward.reasoner import ReasonerError
from racro_pl.serving import chat_client
from tests.fakes.reasoner_server import ANSWER, FaultServer
from tests.unit.reward.conftest import DEADLINE_S, PATIENT_S

PROMPT = [{"role": "user", "content": "Two?"}]


def ask(reasoner, count=1):
    return [future.result(timeout=2 * PATIENT_S) for future in reasoner.submit([PROMPT] * count)]


def test_a_good_answer_and_what_was_sent(connect):
    with FaultServer() as server:
        reasoner = connect(server.url, temperature=0.6, top_p=0.9, max_tokens=7, extra_body={"seed": 3})
        reasoner.check()
        assert [reply.text for reply in ask(reasoner)] == [ANSWER]
    sent = {"model": "tiny", "temperature": 0.6, "top_p": 0.9, "max_tokens": 7, "seed": 3, "stream": False}
    assert server.chats[-1] == {**sent, "messages": PROMPT}
    assert reasoner.busy_seconds > 0


def test_lone_surrogates_survive_the_way(connect):
    with FaultServer(answer=lambda messages: messages[0]["content"]) as server:
        future = connect(server.url).submit([[{"role": "user", "content": "\ud800 é"}]])[0]
        assert future.result(60).text == "\ud800 é"


@pytest.mark.parametrize("healing", ["429 1", "500", "503", "drop"])
def test_what_can_heal_is_tried_again(connect, healing):
    with FaultServer(script=[healing, "ok"]) as server:
        began = time.monotonic()
        assert ask(connect(server.url))[0].text == ANSWER
        if healing == "429 1":
            assert time.monotonic() - began >= 1.0  # Retry-After: 1
    assert len(server.chats) == 2


def test_an_attempt_that_hangs_is_tried_again(connect):
    with FaultServer(script=["hang", "ok"]) as server:
        assert ask(connect(server.url, attempt_s=0.5))[0].text == ANSWER
    assert len(server.chats) >= 2  # on a busy machine a good attempt may be too slow as well


@pytest.mark.parametrize(
    ("mode", "attempts", "error"),
    [
        ("400", 1, "HTTP 400: told to fail with 400"),
        ("401", 1, "HTTP 401: told to fail with 401"),
        ("404", 1, "HTTP 404: told to fail with 404"),
        ("garbage", 1, "bad response: not JSON: '<html>welcome</html>'"),
        ("empty choices", 1, "bad response: no choices"),
        ("null content", 1, "no answer: empty text"),
        ("nan content", 1, "bad response: the message's content is float"),
        ("huge", 1, "bad response: more than 4000000 bytes"),
        ("500", 3, "HTTP 500: told to fail with 500 (attempt 3)"),
        ("drop", 3, "connection failed: "),
        ("429 3600", 1, "HTTP 429: told to fail"),  # told to come back in an hour: past the deadline, so not at all
    ],
)
def test_a_fault_ends_with_its_reason(connect, mode, attempts, error):
    with FaultServer(script=[mode]) as server:
        reply = ask(connect(server.url, attempts=3))[0]
    assert reply.text is None
    assert reply.error.startswith(error)
    assert len(server.chats) == attempts


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_what_never_ends_ends_at_the_deadline(connect, mode):
    with FaultServer(script=[mode]) as server:
        reply = ask(connect(server.url, attempts=3, deadline_s=DEADLINE_S))[0]
        assert reply.error.startswith("timeout: no complete answer within ")
        assert len(server.chats) <= 1


def test_one_fault_does_not_touch_its_neighbours(connect):
    with FaultServer(script=["ok", "garbage", "ok", "400", "ok"]) as server:
        replies = ask(connect(server.url, concurrency=1), 5)
    assert [reply.text == ANSWER for reply in replies] == [True, False, True, False, True]


def test_thoughts_that_the_server_split_off_come_first(connect):
    with FaultServer(script=["thoughts"]) as server:
        assert ask(connect(server.url))[0].text == r"<think>\boxed{7}?</think>\boxed{42}"


def test_sixty_four_in_flight_and_no_more(connect):
    with FaultServer(delay_s=0.3, together=64) as server:
        replies = ask(connect(server.url, concurrency=64), 150)
        assert server.most_in_flight == 64
    assert all(reply.text == ANSWER for reply in replies)


def test_connections_are_used_again_and_none_stays_behind(connect, monkeypatch):
    monkeypatch.setattr(chat_client, "IDLE_LIMIT_S", PATIENT_S)  # after a pause they would be made anew

    def ends(server):
        """The client's, by their own ports. The server's ends are in this process as well."""
        found = psutil.Process().net_connections("tcp")
        return {each.laddr.port for each in found if each.raddr and each.raddr.port == server.port}

    with FaultServer(delay_s=0.02, together=8) as server:
        reasoner = connect(server.url, concurrency=8)
        seen = []
        for _ in range(4):
            assert all(reply.text == ANSWER for reply in ask(reasoner, 20))
            seen.append(ends(server))
        assert len(seen[0]) == 8
        assert seen == [seen[0]] * 4
        reasoner.close()
        assert ends(server) == set()


def test_a_connection_that_the_server_has_dropped_is_made_anew(connect):
    with FaultServer(script=["ok", "drop", "ok"]) as server:
        reasoner = connect(server.url, concurrency=1, attempts=1)
        assert [ask(reasoner)[0].text is not None for _ in range(3)] == [True, False, True]


def test_submit_does_not_wait(connect):
    with FaultServer(script=["hang"]) as server:
        futures = connect(server.url, model="tiny").submit([PROMPT] * 10)
        assert not any(future.done() for future in futures)


def test_a_queue_at_a_dead_server_does_not_wait_out_every_deadline(connect):
    with FaultServer(script=["hang"]) as server:
        replies = ask(connect(server.url, concurrency=2, deadline_s=1.0), 40)
    kinds = [reply.kind for reply in replies]
    assert set(kinds) == {"timeout", "server down"}
    assert kinds.count("timeout") <= 4  # and not 20 deadlines one after the other
    assert len(server.chats) <= 4


@pytest.mark.parametrize("mode", ["500", "429 0", "drop"])
def test_a_server_that_only_fails_is_not_asked_by_the_whole_line(connect, mode):
    with FaultServer(script=[mode]) as server:
        replies = ask(connect(server.url, concurrency=2, attempts=2), 40)
        assert len(server.chats) <= 2 * 4
    assert replies[-1].kind == "server down"


def test_a_deadline_of_the_callers_holds_in_the_line_too(connect):
    with FaultServer(script=["hang"]) as server:
        reasoner = connect(server.url, model="tiny", concurrency=1, deadline_s=1000.0, attempt_s=1000.0)
        futures = reasoner.submit([PROMPT] * 3, time.monotonic() + 1.0)
        assert {future.result(PATIENT_S).kind for future in futures} == {"timeout"}
        assert len(server.chats) <= 1


def test_a_redirect_is_not_followed(connect):
    with FaultServer(script=["redirect"]) as server, FaultServer() as elsewhere:
        server.elsewhere = f"{elsewhere.url}/v1"
        error = ask(connect(server.url))[0].error
    assert error.startswith(f"HTTP 307: sent on to '{elsewhere.url}/v1/chat/completions', which is not followed")
    assert elsewhere.chats == elsewhere.headers == []


def test_another_model_behind_the_same_name_is_noticed(connect):
    with FaultServer(script=["ok", "ok", "wrong model"]) as server:
        reasoner = connect(server.url)
        reasoner.check()
        assert ask(reasoner)[0].text == ANSWER
        assert ask(reasoner)[0].error == "wrong model: 'another' answered; when the run began it was 'tiny'"
        with pytest.raises(ReasonerError, match="wrong model"):
            reasoner.check()
        reasoner.close()
        reasoner.check()  # a new run: what answers now is what it begins with


def test_a_compressed_answer_is_not_unpacked(connect):
    with FaultServer(script=["gzip"]) as server:
        assert "(sent as 'gzip', though asked for it unpacked)" in ask(connect(server.url))[0].error


def test_after_an_outage_the_next_prompts_are_tried(connect):
    with FaultServer(script=["hang"]) as server:
        reasoner = connect(server.url, model="tiny", concurrency=1, attempts=1, deadline_s=0.5)
        assert ask(reasoner)[0].kind == "timeout"
        assert ask(reasoner)[0].kind == "timeout"
        server.script = ["ok"]
        reasoner._session._deadline_s = PATIENT_S
        assert ask(reasoner)[0].text == ANSWER


def test_close_ends_what_is_under_way_and_the_reasoner_can_be_used_again(connect):
    before = set(threading.enumerate())
    with FaultServer(script=["hang", "ok"]) as server:
        reasoner = connect(server.url, model="tiny", deadline_s=1000.0)
        futures = reasoner.submit([PROMPT])
        while not server.chats:
            time.sleep(0.01)
        reasoner.close()
        assert futures[0].result(PATIENT_S).kind == "closed"
        assert not any(thread.name == "reasoner-http" for thread in set(threading.enumerate()) - before)
        assert ask(reasoner)[0].text == ANSWER
