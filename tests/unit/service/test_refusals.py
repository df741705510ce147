"""Whom and what the running service refuses, over real connections of this machine."""

import json
import logging
import socket

import pytest

from racro_pl.reward.reasoner import Reply
from racro_pl.service.limits import Limits
from tests.helpers.service import (
    LIMIT_S,
    EchoReasoner,
    SizeWriter,
    asking,
    data_url,
    picture,
    request_head,
    running_service,
)

KEY = "0123456789abcdef0123"


@pytest.mark.parametrize("host", ["evil.example", "", "127.0.0.1", "evil.example:80"])
def test_other_host_names_are_refused(service, host) -> None:
    for method, path in (("GET", "/health"), ("GET", "/v1/models"), ("POST", "/v1/chat/completions")):
        assert service.client.request(method, path, headers={"Host": host}).status_code in (400, 421)


def test_who_runs_the_service_sees_what_is_refused_but_nothing_that_was_sent(service, caplog) -> None:
    caplog.set_level(logging.INFO, "racro_pl.service")
    answer = service.client.get("/v1/models", headers={"Host": "evil.example"})
    assert f"{answer.headers['x-request-id']} 421 refused: host" in caplog.messages
    assert "evil" not in caplog.text


def test_other_sites_pages_are_refused(service) -> None:
    assert service.client.get("/v1/models", headers={"Origin": "https://evil.example"}).status_code == 403
    assert service.client.get("/v1/models", headers={"Origin": f"http://127.0.0.1:{service.port}"}).status_code == 200
    answer = service.client.get("/health", headers={"Origin": "null"})
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "text/plain"}, {"Content-Type": ""}, {"Content-Encoding": "gzip"}]
)
def test_only_plain_json_is_read(service, headers) -> None:
    answer = service.client.post(
        "/v1/chat/completions", content=b"{}", headers={"Content-Type": "application/json"} | headers
    )
    assert answer.status_code == 415


@pytest.mark.parametrize("name", ["Content-Encoding", "Content-Length", "Content-Type", "Host", "Origin"])
def test_a_header_that_is_there_twice_is_not_believed(service, name) -> None:
    same = [(b"host", f"127.0.0.1:{service.port}".encode()), (b"content-type", b"application/json")]
    twice = [(name.lower().encode(), value) for value in (b"identity", b"gzip")]
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        lines = [b"POST /v1/chat/completions HTTP/1.1"]
        lines += [key + b": " + value for key, value in [*same, *twice]]
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        assert b" 400 " in connection.recv(4096).partition(b"\r\n")[0]


def test_every_route_but_health_asks_for_the_key() -> None:
    with running_service(SizeWriter(), EchoReasoner(), key=KEY) as running:
        for path in ("/v1/models", "/metrics", "/v1/chat/completions", "/docs", "/invocations", "/v1", "//v1/models"):
            for wrong in ("", "Bearer", f"Bearer {KEY}x", f"Basic {KEY}", KEY):
                assert running.client.get(path, headers={"Authorization": wrong}).status_code == 401, path
        assert running.client.get("/health", headers={"Authorization": ""}).status_code == 200
        assert running.client.get("/v1/models").status_code == 200
        assert running.client.get("/docs").status_code == 404


def test_a_large_body_is_refused_before_it_is_read() -> None:
    with running_service(SizeWriter(), EchoReasoner(), limits=Limits(body_bytes=10_000)) as running:
        assert (
            running.client.post(
                "/v1/chat/completions", content=b"x" * 20_000, headers={"Content-Type": "application/json"}
            ).status_code
            == 413
        )
        chunked = (b"x" * 1000 for _ in range(50))
        answer = running.client.post(
            "/v1/chat/completions", content=chunked, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 413


def test_fifty_megabytes_are_refused_by_their_length_alone(service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=LIMIT_S) as connection:
        connection.sendall(request_head(service.port, 50_000_000))
        assert b" 413 " in connection.recv(100)
    assert service.chat({"role": "user", "content": "hi"}).status_code == 200


def test_a_slow_client_is_hung_up_on() -> None:
    with running_service(SizeWriter(), EchoReasoner(), limits=Limits(header_s=0.3)) as running:  # noqa: SIM117
        with socket.create_connection(("127.0.0.1", running.port), timeout=LIMIT_S) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\n")
            assert connection.recv(100) == b"", "a head that is not finished"
    with running_service(SizeWriter(), EchoReasoner(), limits=Limits(header_s=LIMIT_S, body_s=0.3)) as running:
        with socket.create_connection(("127.0.0.1", running.port), timeout=LIMIT_S) as connection:
            connection.sendall(request_head(running.port, 100) + b"{")
            assert b" 408 " in connection.recv(100), "a body that is not finished"
        assert running.client.get("/health").status_code == 200


def test_a_client_that_reads_slowly_holds_no_place_for_ever() -> None:
    class Endless(EchoReasoner):
        def submit(self, prompts):
            self.error = None
            futures = super().submit(prompts)
            futures[0] = type(futures[0])()
            futures[0].set_result(Reply(text="x" * 20_000_000))
            return futures

    limits = Limits(working=1, waiting=0, send_s=0.5)
    with running_service(SizeWriter(), Endless(), limits=limits) as running:
        body = json.dumps({"messages": [asking("how many ?")], "stream": True}).encode()
        with socket.create_connection(("127.0.0.1", running.port), timeout=LIMIT_S) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(request_head(running.port, len(body)) + body)
            connection.recv(1)
            running.wait_until_in_line(working=0)


def test_logs_hold_no_text_image_or_key(caplog) -> None:
    caplog.set_level("INFO", logger="racro_pl.service")
    with running_service(SizeWriter(), EchoReasoner(), key=KEY) as running:
        running.chat(asking("a secret question", picture()))
    assert caplog.records
    assert "secret" not in caplog.text
    assert KEY not in caplog.text


def test_odd_content_is_refused_without_repeating_it(service) -> None:
    answer = service.chat(
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(b"x", "evil")}}]}
    )
    assert answer.status_code == 400
    assert "evil" not in answer.text
