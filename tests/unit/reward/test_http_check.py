"""What an HTTP reasoner finds out before a run, its key, and its settings."""

import asyncio
import socket

import pytest

from racro_pl.reward.http import REFUSED_LIMIT_S, HttpReasoner
from racro_pl.reward.reasoner import ReasonerError
from racro_pl.serving.chat_client import ChatClient
from racro_pl.serving.network import is_loopback
from tests.fakes.reasoner_server import ANSWER, FaultServer
from tests.unit.reward.conftest import DEADLINE_S
from tests.unit.reward.test_http import ask

PATIENT = {"deadline_s": 600.0, "attempt_s": 300.0, "attempts": 8, "backoff_s": 0.5}
"""The default."""
SOON = r"no complete answer within [12](\.\d+)? s"
"""By ``DEADLINE_S``: of a list of models it would be 15 s."""


@pytest.mark.parametrize(
    ("settings", "server_settings", "message"),
    [
        ({"model": "big"}, {"models": ["tiny", "small"]}, "serves 'tiny', 'small', not 'big'"),
        ({}, {"models": ["tiny", "small"]}, r"several models or none \('tiny', 'small'\)"),
        ({}, {"models": []}, "several models or none"),
        ({"deadline_s": DEADLINE_S}, {"listing": "hang"}, rf"timeout: {SOON}.* hangs, or is still loading"),
        ({}, {"listing": "404"}, "HTTP 404.*is this the base URL"),
        ({}, {"listing": "garbage"}, "not JSON"),
        ({"max_tokens": 512}, {"context": 512}, "context of 512 tokens: max_tokens=512"),
        ({"deadline_s": DEADLINE_S}, {"script": ["hang"]}, f"answers no chat: timeout: {SOON}"),
        ({}, {"script": ["400"]}, "answers no chat: HTTP 400: told to fail"),
        ({}, {"script": ["empty choices"]}, "answers no chat: bad response"),
    ],
)
def test_check_says_what_is_wrong(connect, settings, server_settings, message):
    with FaultServer(**server_settings) as server, pytest.raises(ReasonerError, match=message):
        connect(server.url, **settings).check()


def test_check_of_a_port_that_refuses(connect):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ReasonerError, match="no reasoner at .* .connection failed.*start the reasoner's server"):
            connect(url).check()
        reply = ask(connect(url, model="tiny", attempts=2))[0]
    assert reply.kind == "connection failed"


def test_a_deadline_that_passes_between_two_attempts_hides_no_fault(connect, monkeypatch):
    async def overslept(seconds):  # as on a busy machine
        await sleep(1.2 if seconds else 0)

    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", overslept)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        reasoner = connect(f"http://127.0.0.1:{unused.getsockname()[1]}", model="tiny", deadline_s=1.0)
        assert ask(reasoner)[0].kind == "connection failed"


@pytest.mark.usefixtures("quick_refusal")
def test_where_nothing_listens_a_user_is_told_within_seconds(connect):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        reasoner = connect(f"http://127.0.0.1:{unused.getsockname()[1]}", **PATIENT)
        with pytest.raises(
            ReasonerError, match="no reasoner at .* .connection failed.*start the reasoner's server"
        ) as error:
            reasoner.check()
    assert "(attempt" not in str(error.value)  # 5 attempts or so in the 15 s that a server which is there may take
    assert REFUSED_LIMIT_S <= 2


def test_a_server_that_listens_a_moment_later_is_found(connect, monkeypatch):
    monkeypatch.setattr("racro_pl.reward.http.REFUSED_LIMIT_S", 100.0)
    lost = ChatClient._lost
    with FaultServer() as server:
        server.go_away()

        def comes_back(client, error):
            server.come_back()
            return lost(client, error)

        monkeypatch.setattr(ChatClient, "_lost", comes_back)
        connect(server.url, **PATIENT).check()
    assert len(server.chats) == 1


def test_the_key_is_sent_and_never_shown(connect, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-secret\n")
    with FaultServer(script=["401"], answer=lambda messages: "") as server:
        reasoner = connect(server.url, api_key_env="SOME_KEY")
        reply = ask(reasoner)[0]
        assert server.headers[-1]["authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in reasoner.identity + str(reply) + repr(vars(reasoner))
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(ReasonerError, match="SOME_KEY .* is not set"):
        connect(server.url, api_key_env="SOME_KEY").check()


def test_a_key_quoted_by_the_server_is_blanked(connect, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "told")  # the fault server's message says "told to fail"
    with FaultServer(script=["401"]) as server:
        assert ask(connect(server.url, api_key_env="SOME_KEY"))[0].error == "HTTP 401: *** to fail with 401"


def test_identity_is_the_model_and_its_settings():
    def build(url="http://one:1", **settings):
        return HttpReasoner(url, **({"model": "tiny"} | settings)).identity

    assert build() == build("http://two:2/v1", concurrency=3, deadline_s=1.0, api_key_env="K")
    others = [{"model": "b"}, {"temperature": 0.5}, {"top_p": 0.5}, {"max_tokens": 5}, {"extra_body": {"seed": 1}}]
    assert len({build(), *(build(**settings) for settings in others)}) == 6


def test_greedy_is_deterministic():
    assert HttpReasoner(temperature=0).deterministic
    assert not HttpReasoner().deterministic


@pytest.mark.parametrize(
    "settings",
    [{"url": "localhost:8000"}, {"url": "http://u:p@h"}, {"temperature": -1}, {"temperature": float("inf")},
     {"top_p": 0}, {"max_tokens": 0}, {"concurrency": 0}, {"deadline_s": 0}, {"attempt_s": 0},
     {"attempts": 0}, {"backoff_s": -1}],
)  # fmt: skip
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match="got .*, expected "):
        HttpReasoner(**settings)


def test_urls():
    assert HttpReasoner("http://h:1").url == HttpReasoner("http://h:1/").url == HttpReasoner("http://h:1/v1/").url
    assert HttpReasoner("https://h/openai").url == "https://h/openai"
    assert is_loopback("http://127.0.0.1:1/v1")
    assert is_loopback("http://[::1]:1")
    assert is_loopback("http://localhost")
    assert not is_loopback("https://api.example.org/v1")


def test_a_proxy_does_not_get_between_us_and_this_machine(connect, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with FaultServer() as server:
        assert ask(connect(server.url))[0].text == ANSWER
