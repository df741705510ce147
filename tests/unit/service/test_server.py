"""Where the service listens, what it leaves there, and how long clients hold their connections."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from racro_pl.service.limits import Limits
from racro_pl.service.server import bound, bound_uds, config
from racro_pl.types import RacroError
from tests.helpers.service import LIMIT_S


@pytest.fixture
def place():
    """A socket's path, short enough for one, in a private folder."""
    with tempfile.TemporaryDirectory(prefix="racro-") as folder:
        yield Path(folder) / "s.sock"


def leave_stale(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(place))


def refuse(place: Path, why: str) -> None:
    with pytest.raises(RacroError, match=why), bound_uds(place, open_to_others=False):
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_second_of_two_services_at_a_port_is_refused_at_once(host):
    with bound(host, 0) as first, pytest.raises(RacroError, match=f"cannot listen on {host}, port .*in use"):
        bound(host, first.getsockname()[1])


@pytest.mark.parametrize(("open_to_others", "mode"), [(False, 0o600), (True, 0o666)])
def test_a_socket_is_there_for_those_who_may_connect_and_goes_in_the_end(place, open_to_others, mode):
    with bound_uds(place, open_to_others), socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(place.stat().st_mode) == mode
        client.connect(str(place))
    assert not place.exists()
    place.touch()
    assert stat.S_IMODE(place.stat().st_mode) & 0o400, "the umask is as it was"


def test_what_is_no_socket_stays(place):
    place.write_text("mine")
    refuse(place, "is no socket")
    assert place.read_text() == "mine"
    link = place.with_name("link")
    link.symlink_to(place.with_name("nothing"))
    refuse(link, "is no socket")
    assert link.is_symlink()


def test_a_socket_that_is_served_stays_however_many_wait_there(place):
    with bound_uds(place, open_to_others=False) as first:
        refuse(place, "another program listens there")
        first.listen(0)
        refuse(place, "another program listens there")
        refuse(place, "another program listens there")
    assert not place.exists()


def test_the_socket_of_a_killed_service_is_replaced(place):
    leave_stale(place)
    with bound_uds(place, open_to_others=False), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))


def test_the_socket_of_another_service_is_not_removed(place):
    with bound_uds(place, open_to_others=False) as first:
        first.close()  # uvicorn does so when it shuts down: its inode may then be used again
        place.unlink()
        leave_stale(place)
        os.utime(place, (1, 1))  # another time than ours, on a coarse clock too
    assert place.is_socket()
    place.unlink()
    with bound_uds(place, open_to_others=False):
        place.unlink()


@pytest.mark.parametrize(("name", "why"), [("none/s.sock", "No such file"), ("x" * 120, "path too long")])
def test_a_path_that_cannot_be_is_told(place, name, why):
    refuse(place.parent / name, f"cannot listen there .*{why}")


@pytest.mark.parametrize("size", [50_000, 20_000_000])
def test_a_client_that_does_not_read_loses_its_connection(size):
    """The smaller answer is one that uvicorn takes to be sent: less waits than asyncio's mark for a full buffer."""
    seen: list[str] = []

    def answer(_: object) -> Response:
        seen.append("asked")
        return Response(b"x" * size)

    async def until(condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.01)

    async def hold_out(listener: socket.socket) -> None:
        server = uvicorn.Server(config(Starlette(routes=[Route("/", answer)]), Limits(send_s=0.3)))
        serving = asyncio.create_task(server.serve([listener]))
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(listener.getsockname())
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await until(lambda: bool(seen))
            await until(lambda: not server.server_state.connections)
        server.should_exit = True
        await serving

    with bound("127.0.0.1", 0) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        asyncio.run(asyncio.wait_for(hold_out(listener), LIMIT_S))
