"""``racro-pl serve pipeline`` as a process: where it listens, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from pathlib import Path

import httpx
import pytest

from racro_pl.commands import serve
from racro_pl.commands.serve_pipeline import KEY_VARIABLE
from racro_pl.types import RacroError
from tests.helpers.commands import Command
from tests.helpers.service import asking, picture


@pytest.fixture
def folder():
    """A folder with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="racro-") as folder:
        yield Path(folder)


def serving(place: Path, **variables: str) -> Command:
    captioner = ["--captioner", "embedded:figure-captioner"]
    return Command(["serve", "pipeline", "--uds", str(place), *captioner], variables)


def test_it_answers_on_a_socket_and_ends_cleanly_on_sigterm(folder):
    place = folder / "s.sock"
    server = serving(place)
    server.wait_for(place.exists, 200)
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(place)), base_url="http://localhost", timeout=100
    ) as client:
        answer = client.post(
            "/v1/chat/completions", json={"messages": [asking("what is the color of square ?", picture(56, 56))]}
        )
    assert answer.status_code == 200
    os.kill(server.pid, signal.SIGTERM)
    output = server.wait(100)
    assert server.returncode == 0, output
    assert "leaked" not in output
    assert not place.exists()


def test_a_taken_port_is_told_before_models_are_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(RacroError, match="cannot listen on 127.0.0.1"):
        serve.main(["pipeline", "--port", str(taken.getsockname()[1]), "--captioner", "nowhere"])


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--port", "70000"), ("--max-tokens", "0"), ("--temperature", "nan"), ("--working", "0"), ("--name", " ")],
)
def test_settings_that_cannot_be_are_refused_at_once(flag, value):
    with pytest.raises(RacroError, match=rf"{flag} is '?{value.strip()}.*; expected"):
        serve.main(["pipeline", flag, value])


def test_a_socket_that_others_can_reach_needs_a_key(folder):
    folder.chmod(0o755)
    refused = serving(folder / "s.sock")
    assert f"other users can enter {folder}" in refused.wait(100)
    assert refused.returncode == 1
    locked = serving(folder / "s.sock", **{KEY_VARIABLE: "0123456789abcdef"})
    locked.wait_for((folder / "s.sock").exists, 200)
    locked.kill()
