"""Streaming through a real HTTP reasoner: one that answers, one that breaks off, one that never ends."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from racro_pl.reward import HttpReasoner
from racro_pl.service import reasoning
from racro_pl.service.errors import ServiceError

CHAT = [{"role": "user", "content": "How many?"}]


def event(text, finish=None):
    return sent({"choices": [{"delta": {"content": text}, "finish_reason": finish}]})


def sent(data, ascii=True):
    return b"data: " + json.dumps(data, ensure_ascii=ascii).encode() + b"\n\n"


@contextmanager
def streaming(pieces):
    """A reasoner on loopback that sends these bytes and closes the connection."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                for piece in pieces():
                    self.wfile.write(piece)
            except OSError:
                pass  # the client hung up

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield HttpReasoner(f"http://127.0.0.1:{server.server_port}/v1", model="m")
    finally:
        server.shutdown()
        server.server_close()


def pieces_of(reasoner):
    """The texts that arrive, and the error or the reason that the answer ends with."""
    arrived = []

    async def read():
        with ThreadPoolExecutor(1) as threads:
            async for piece in reasoning.answer(reasoner, CHAT, threads):
                arrived.append(piece)

    try:
        asyncio.run(read())
    except ServiceError as error:
        return [piece.text for piece in arrived], str(error)
    assert not any(piece.finish for piece in arrived[:-1])
    return [piece.text for piece in arrived[:-1]], arrived[-1].finish


DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("end", "finish"),
    [
        ([event("", "stop")], "stop"),
        ([DONE], "stop"),
        ([event("", "length"), DONE], "length"),
        ([sent({"choices": [{"delta": None, "finish_reason": "stop"}]})], "stop"),
        ([sent({"choices": [{"finish_reason": "eos"}]})], "stop"),
        ([event("", "stop"), sent({"choices": [], "usage": {"total_tokens": 9}}), DONE], "stop"),
    ],
)
def test_pieces_come_as_they_are_written(end, finish):
    with streaming(lambda: [event("thr"), event("ee"), *end]) as reasoner:
        assert pieces_of(reasoner) == (["thr", "ee"], finish)


def test_a_line_ends_at_a_line_feed_alone():
    text = "one\u2028two\u2029three\x85four"
    whole = sent({"choices": [{"delta": {"content": text}}]}, ascii=False).replace(b"\n", b"\r\n")
    with streaming(lambda: [whole[:20], whole[20:21], whole[21:], DONE]) as reasoner:
        assert pieces_of(reasoner) == ([text], "stop")


@pytest.mark.parametrize(
    "broken",
    [
        sent({"error": {"message": "out of memory", "code": 500}}),
        sent({"choices": [{"delta": {"content": ""}, "error": {"message": "out of memory"}}]}),
        event("", "error"),
        event("", "abort"),
    ],
)
def test_an_error_in_the_middle_is_no_end(broken):
    with streaming(lambda: [event("The answer is 1"), broken, DONE]) as reasoner:
        assert pieces_of(reasoner) == (["The answer is 1"], "the reasoner's answer broke off")


def test_an_answer_that_breaks_off_is_no_answer():
    with streaming(lambda: [event("thr")]) as reasoner:
        arrived, error = pieces_of(reasoner)
    assert arrived == ["thr"]
    assert "broke off" in error


def test_an_answer_that_does_not_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(reasoning, "LONGEST_ANSWER", 20_000)

    def endless():
        while True:
            yield event("x" * 100)

    with streaming(endless) as reasoner:
        arrived, error = pieces_of(reasoner)
    assert 10 < len(arrived) < 200
    assert "does not end" in error


def test_a_broken_event_and_an_empty_answer_are_told():
    with streaming(lambda: [b"data: {\n\n"]) as reasoner:
        assert "stream is broken" in pieces_of(reasoner)[1]
    with streaming(lambda: [b"data: [DONE]\n\n"]) as reasoner:
        assert "gave no answer" in pieces_of(reasoner)[1]
