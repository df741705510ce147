"""``racro-pl serve pipeline`` as a process: where it listens, and how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
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


def connectable(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(place)) == 0


def client_at(place: Path) -> httpx.Client:
    # The socket is there before the models are: the first request waits for them.
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(place)), base_url="http://localhost", timeout=200)


def test_it_answers_on_a_socket_and_ends_cleanly_on_sigterm(folder):
    place = folder / "s.sock"
    server = serving(place)
    server.wait_for(lambda: connectable(place), 200)
    with client_at(place) as client:
        answer = client.post(
            "/v1/chat/completions", json={"messages": [asking("what is the color of square ?", picture(56, 56))]}
        )
    assert answer.status_code == 200
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    os.kill(server.pid, signal.SIGTERM)
    output = server.wait(100)
    assert server.returncode == 0, output
    assert "leaked" not in output
    assert not place.exists()


def test_a_taken_port_is_told_before_models_are_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(RacroError, match="cannot listen on 127.0.0.1"):
        serve.main(["pipeline", "--port", str(taken.getsockname()[1]), "--captioner", "nowhere"])


def test_a_file_at_the_sockets_path_is_told_before_models_are_loaded_and_stays(folder):
    notes = folder / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(RacroError, match="is no socket"):
        serve.main(["pipeline", "--uds", str(notes), "--captioner", "nowhere"])
    assert notes.read_text() == "mine"


def test_no_socket_is_left_when_models_cannot_be_loaded(folder, monkeypatch):
    def fail(*_):
        assert connectable(folder / "s.sock")
        raise RacroError("no such model")

    monkeypatch.setattr("racro_pl.commands.serve_pipeline._app", fail)
    with pytest.raises(RacroError, match="no such model"):
        serve.main(["pipeline", "--uds", str(folder / "s.sock")])
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("host", "url"), [("::1", "http://[::1]:8080/v1"), ("127.0.0.1", "http://127.0.0.1:8080/v1")])
def test_the_url_that_is_shown_can_be_used(monkeypatch, capsys, host, url):
    monkeypatch.setattr("racro_pl.service.server.bound", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr("racro_pl.service.server.run", lambda *_: None)
    monkeypatch.setattr("racro_pl.commands.serve_pipeline._app", lambda *_: None)
    assert serve.main(["pipeline", "--host", host]) == 0
    assert f" at {url} " in capsys.readouterr().out


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
    locked.wait_for(lambda: connectable(folder / "s.sock"), 200)
    with client_at(folder / "s.sock") as client:
        assert client.get("/v1/models").status_code == 401
    assert stat.S_IMODE((folder / "s.sock").stat().st_mode) == 0o666
    locked.kill()
