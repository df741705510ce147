"""Streaming through a real HTTP reasoner: one that answers, one that breaks off, one that never ends."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from racro_pl.reward import HttpReasoner
from racro_pl.service import reasoning
from racro_pl.service.errors import ServiceError

CHAT = [{"role": "user", "content": "How many?"}]


def event(text, finish=None):
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}, 'finish_reason': finish}]})}\n\n".encode()


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
    """What arrives, and the error that it ends with."""
    arrived = []

    async def read():
        async for piece in reasoning.answer(reasoner, CHAT):
            arrived.append(piece)

    try:
        asyncio.run(read())
    except ServiceError as error:
        return arrived, str(error)
    return arrived, None


@pytest.mark.parametrize("end", [[event("", "stop")], [b"data: [DONE]\n\n"]])
def test_pieces_come_as_they_are_written(end):
    with streaming(lambda: [event("thr"), event("ee"), *end]) as reasoner:
        assert pieces_of(reasoner) == (["thr", "ee"], None)


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
