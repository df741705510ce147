"""Images at addresses: only where allowed, only from public hosts, each redirect anew, bounded in bytes and time."""

import asyncio
import socket
import threading

import httpx
import pytest

from racro_pl.service import fetching
from racro_pl.service.errors import ServiceError
from racro_pl.service.fetching import ImageFetcher, is_public
from racro_pl.service.limits import Limits
from tests.helpers.service import LIMIT_S, EchoReasoner, SizeWriter, picture, running_service

PUBLIC, PRIVATE = "93.184.215.14", "10.0.0.7"
HOSTS = {
    "images.example": [PUBLIC], "home.example": [PRIVATE], "mixed.example": [PUBLIC, PRIVATE], "none.example": [],
    "127.0.0.1": ["127.0.0.1"], "::1": ["::1"],
}  # fmt: skip


def address_message(url: str) -> dict:
    return {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "how wide ?"}],
    }


class Net:
    """Hosts with addresses, which all answer alike; notes what was asked of them."""

    def __init__(self, answer, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        self.asked: list[httpx.Request] = []
        self.answer = answer
        self.fetcher = ImageFetcher(limits, httpx.MockTransport(self.note), self.resolve)

    def note(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answer(request)

    async def resolve(self, host: str) -> list[str]:
        if host not in HOSTS:
            raise OSError("no such host")
        return HOSTS[host]

    def fetch(self, url: str) -> bytes:
        return asyncio.run(self.fetcher.fetch(url, "messages[0]"))

    def refuses(self, url: str) -> None:
        with pytest.raises(ServiceError) as caught:
            self.fetch(url)
        assert (caught.value.status, caught.value.param) == (400, "messages[0]")
        assert "example" not in caught.value.message


def test_a_file_is_read_from_the_address_that_was_checked() -> None:
    net = Net(lambda request: httpx.Response(200, content=b"x" * 9))
    assert net.fetch("https://images.example/a.png?b=1") == b"x" * 9
    (request,) = net.asked
    assert str(request.url) == f"https://{PUBLIC}/a.png?b=1", "no second look-up decides where it goes"
    assert request.headers["host"] == "images.example"
    assert request.extensions["sni_hostname"] == "images.example", "the certificate has to be the name's"
    assert not {"authorization", "cookie"} & set(request.headers)


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example/a.png", "https://home.example/", "https://mixed.example/", "https://none.example/",
        "https://images.example:8443/", "https://user:word@images.example/", "https://127.0.0.1/", "https:///a.png",
        "https://[::1]/", "https://unknown.example/",
        "https://images.example\x00/", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_what_is_not_public_and_https_is_not_asked(url) -> None:
    net = Net(lambda request: httpx.Response(200, content=b"x"))
    net.refuses(url)
    assert net.asked == []


@pytest.mark.parametrize("target", ["https://home.example/", "http://images.example/", "//127.0.0.1/"])
def test_a_redirect_is_checked_like_the_first_address(target) -> None:
    net = Net(lambda request: httpx.Response(302, headers={"location": target}))
    net.refuses("https://images.example/")
    assert len(net.asked) == 1


def test_redirects_are_followed_and_end() -> None:
    def step(request: httpx.Request) -> httpx.Response:
        left = int(request.url.path[1:])
        return httpx.Response(302, headers={"location": f"/{left - 1}"}) if left else httpx.Response(200, content=b"x")

    net = Net(step)
    assert net.fetch("https://images.example/3") == b"x"
    assert len(net.asked) == 1 + fetching.REDIRECTS
    net.refuses("https://images.example/4")


def slow(request: httpx.Request) -> httpx.Response:
    async def drip():
        while True:
            yield b"x"
            await asyncio.sleep(0.02)

    return httpx.Response(200, content=drip())


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: httpx.Response(404, content=b"x"),
        lambda request: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"x")),
        lambda request: httpx.Response(200, content=b"x" * 10_001),
        slow,
    ],
)
def test_other_answers_are_no_image(answer, monkeypatch) -> None:
    if answer is slow:
        monkeypatch.setattr(fetching, "SECONDS", 0.5)
    net = Net(answer, Limits(image_bytes=10_000))
    net.refuses("https://images.example/")
    assert len(net.asked) == 1


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "::1", "fe80::1%eth0", "fd00::1",
     "::ffff:8.8.8.8", "64:ff9b::7f00:1", "2002:7f00:1::"],
)  # fmt: skip
def test_addresses_of_this_machine_and_its_networks_are_not_public(address) -> None:
    assert not is_public(address)


def test_the_service_fetches_where_it_is_allowed_and_each_image_once(monkeypatch) -> None:
    fetched: list[str] = []

    async def fetch(self, url: str, where: str) -> bytes:
        fetched.append(url)
        return picture(7, 5)

    monkeypatch.setattr(ImageFetcher, "fetch", fetch)
    message = address_message("https://images.example/a.png")
    with running_service(SizeWriter(), EchoReasoner(), limits=Limits(image_addresses=True)) as running:
        replies = [running.chat(message) for _ in range(2)]
        plain = running.chat(address_message("http://images.example/a.png"))
    assert ["1 of 7 x 5 for how wide ?" in reply.text for reply in replies] == [True, True]
    assert fetched == ["https://images.example/a.png"], "a caption is remembered by address"
    assert plain.status_code == 400
    with running_service(SizeWriter(), EchoReasoner()) as running:
        refused = running.chat(message)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "image_url")


def test_names_that_take_long_leave_the_loops_threads_free(monkeypatch) -> None:
    known = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: known.wait(LIMIT_S) and [(0, 0, 0, "", (PUBLIC, 443))])

    async def many_names() -> list[list[str]]:
        asked = [asyncio.create_task(fetching.resolve("slow.example")) for _ in range(40)]
        await asyncio.sleep(0)
        await asyncio.to_thread(known.set)
        return await asyncio.gather(*asked)

    assert asyncio.run(many_names()) == [[PUBLIC]] * 40
