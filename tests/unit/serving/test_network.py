"""Addresses, proxies and certificates: what works is used, what cannot is told in one line."""

from __future__ import annotations

import doctest
import os
import shutil
import subprocess

import pytest

from racro_pl.reward import HttpReasoner, ReasonerError
from racro_pl.reward import api_key as api_keys
from racro_pl.serving import network, replies
from racro_pl.serving.network import (
    ConnectionSettingError,
    clean_url,
    client_settings,
    connect_url,
    is_local_address,
    is_loopback,
)
from racro_pl.types import RacroError
from tests.fakes.dialects import StandIn, completion

OUTSIDE = "https://reasoner.example/v1"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Without the proxies and certificates of whoever runs the tests."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            monkeypatch.delenv(name)
    return monkeypatch


def ask(url: str, **settings):
    reasoner = HttpReasoner(url, attempts=3, backoff_s=0.01, deadline_s=100.0, **settings)
    try:
        reasoner.check()
        return reasoner.submit([[{"role": "user", "content": "q"}]])[0].result(200)
    finally:
        reasoner.close()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "localhost"])
def test_this_machine_is_reached_without_a_proxy(environment, name, host):
    environment.setenv(name, "http://127.0.0.1:9")
    with StandIn(lambda body: (200, completion())) as server:
        assert ask(f"http://{host}:{server.port}").text


@pytest.mark.parametrize(
    ("url", "connected"),
    [
        ("http://0.0.0.0:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://[::]:8000/v1", "http://[::1]:8000/v1"),
        ("http://[::]/v1", "http://[::1]/v1"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        (OUTSIDE, OUTSIDE),
    ],
)
def test_wherever_a_server_listens_is_this_machine(url, connected):
    assert connect_url(url) == connected
    assert is_loopback(url) == (url != OUTSIDE)


def test_only_addresses_of_this_machine_alone_need_no_key():
    assert all(map(is_local_address, ["localhost", "127.0.0.1", "127.8.9.1", "::1"]))
    # A name may begin like an address and lead anywhere; "wherever I listen" is open to others.
    assert not any(map(is_local_address, ["127.0.0.1.example.com", "127.example.com", "0.0.0.0", "::", "10.0.0.1", ""]))


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "proxy:3128"}, "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, None),  # of the other scheme
        ({"ALL_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"ALL_PROXY": "http://proxy:3128", "NO_PROXY": "localhost,[::1],::1/128"}, "http://proxy:3128"),
        ({"ALL_PROXY": "http://proxy:3128", "NO_PROXY": "[::1],example"}, None),
        ({"ALL_PROXY": "socks5://proxy:1", "NO_PROXY": "reasoner.example"}, None),
        ({"ALL_PROXY": "socks5://proxy:1", "NO_PROXY": "*"}, None),
    ],
)
def test_other_machines_are_reached_by_the_proxy_that_is_set(environment, environ, proxy):
    for name, value in environ.items():
        environment.setenv(name, value)
    assert client_settings(OUTSIDE)["proxy"] == proxy


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        ("socks5://u:secret@proxy:1", "ALL_PROXY names a socks5:// proxy, which needs the package socksio"),
        (
            "socks://u:secret@proxy:1",
            r"ALL_PROXY names a proxy that cannot be used \(socks://\.\.\.\): name a proxy as",
        ),
        ("http://u:secret@proxy:99999", r"ALL_PROXY names a proxy that cannot be used"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_line(environment, proxy, message):
    environment.setenv("ALL_PROXY", proxy)
    with pytest.raises(RacroError, match=f"^{OUTSIDE}: {message}.*NO_PROXY=reasoner.example$") as error:
        HttpReasoner(OUTSIDE, model="tiny").check()
    assert "secret" not in str(error.value)
    assert error.value.__suppress_context__


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:99999/v1", "http://127.0.0.1:-1", "http://h:x/v1", "http://h:0/v1", "http://[::1/v1", "ftp://h/v1",
     "h:8000", "http://", "http:///v1", "http://a b/v1", "http://h/v1\x07", "http://h\n.example/v1", ""],
)  # fmt: skip
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConnectionSettingError, match=r"(?s)^got url=.*, expected "):
        HttpReasoner(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://u:secret@h/v1",
        "u:secret@h/v1",
        "http://u:secret@[::1/v1",
        "http://h/v1?key=secret",
        "http://h/v1#secret",
    ],
)
def test_a_refused_address_is_not_repeated_where_it_may_hold_a_secret(url):
    with pytest.raises(ConnectionSettingError, match="^got a url with ") as error:
        HttpReasoner(url)
    assert "secret" not in str(error.value)


def test_white_space_around_an_address_is_taken_off():
    assert clean_url(" http://h:1/v1/\n") == "http://h:1/v1"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 that no authority vouches for, with its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "own.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    path = folder / "private.pem"
    path.write_bytes((folder / "own.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return path


def test_a_private_authority_is_named_by_a_setting_or_by_the_environment(environment, certificate):
    with StandIn(lambda body: (200, completion()), certificate=certificate) as server:
        with pytest.raises(ReasonerError, match="bad certificate: .*: for a private authority set the"):
            ask(server.url)
        assert server.bodies == []
        assert ask(server.url, verify=str(certificate)).text
        environment.setenv("SSL_CERT_FILE", str(certificate))
        assert ask(server.url).text  # on this machine too


@pytest.mark.parametrize("setting", ["verify", "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_that_cannot_be_read_are_one_line(environment, tmp_path, setting):
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    for path in (tmp_path / "nowhere.pem", bad):
        if setting != "verify":
            environment.setenv(setting, str(path))
        settings = {"verify": str(path)} if setting == "verify" else {}
        with pytest.raises(RacroError, match=f"^got {setting}=.*{path.name}.*, expected a file .* certificates"):
            HttpReasoner(OUTSIDE, model="tiny", **settings).check()
        # Over plain http none are needed.
        client_settings("http://reasoner.example/v1")


def test_a_key_is_announced_before_it_leaves_this_machine(environment, capsys, monkeypatch):
    monkeypatch.setattr(api_keys, "_announced", set())
    environment.setenv("MY_KEY", "sk-secret")
    settings = {"model": "tiny", "api_key_env": "MY_KEY", "attempts": 1}
    with StandIn(lambda body: (200, completion())) as server:
        HttpReasoner(server.url, **settings).check()
    assert capsys.readouterr().err == ""  # this machine
    for url, line in (
        ("https://reasoner.invalid/v1", "sending the API key in MY_KEY to https://reasoner.invalid/v1\n"),
        ("http://reasoner.invalid/v1", "warning: sending the API key in MY_KEY to http://reasoner.invalid/v1, unenc"),
    ):
        for expected in (line, ""):  # once for each address
            reasoner = HttpReasoner(url, **settings, deadline_s=0.2)
            with pytest.raises(ReasonerError):
                reasoner.check()
            reasoner.close()
            printed = capsys.readouterr().err
            assert printed.startswith(expected)
            assert printed.count("\n") == (1 if expected else 0)
            assert "sk-secret" not in printed


def test_examples():
    for module in (network, replies):
        assert doctest.testmod(module) == (0, 1)
