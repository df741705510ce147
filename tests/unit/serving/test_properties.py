"""Whatever a server sends: an answer, or a fault that says why; never another exception, never a wait without end."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from racro_pl.serving import chat_client
from racro_pl.serving.chat_client import Fault, is_loopback, read_reply

NAMES = st.sampled_from(["choices", "message", "content", "reasoning", "reasoning_content", "error", "detail"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)


@given(JSON)
def test_any_json_is_a_text_or_a_fault(data):
    with contextlib.suppress(Fault):
        assert isinstance(read_reply(data), str)


@given(st.text(max_size=50), st.text(min_size=1, max_size=50))
def test_a_completion_is_read_back_with_its_thoughts(content, thoughts):
    def completion(**message):
        return json.loads(json.dumps({"choices": [{"message": message}]}))

    assert read_reply(completion(content=content)) == content
    for name in ("reasoning", "reasoning_content"):
        assert read_reply(completion(content=content, **{name: thoughts})) == f"<think>{thoughts}</think>{content}"
        assert read_reply(completion(content=None, **{name: thoughts})) == f"<think>{thoughts}</think>"


@given(st.text(max_size=30) | st.integers(-10, 10**12).map(str) | st.floats().map(str))
def test_retry_after_is_a_number_of_seconds_or_nothing(header):
    seconds = chat_client._retry_after_s(header)
    assert 0 <= seconds < 10**9
    assert seconds == seconds // 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("", 0), ("3", 3), (" 7 ", 7), ("0", 0), ("-3", 0), ("1.5", 0), ("1e9", 0), ("inf", 0), ("nan", 0), ("²", 0),
     ("٣", 3), ("999999999999", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)  # fmt: skip
def test_retry_after_by_example(header, seconds):
    assert chat_client._retry_after_s(header) == seconds


@given(st.binary(max_size=200) | JSON.map(lambda data: json.dumps(data).encode()))
def test_an_error_page_becomes_one_short_line(body):
    message = chat_client._server_message(body)
    assert len(message) <= 300
    assert "\n" not in message


@given(st.text(max_size=30))
def test_a_host_is_loopback_only_when_it_is(host):
    try:
        found = is_loopback(f"http://{host}/v1")
    except ValueError:  # no URL at all
        return
    plain = host.split("@")[-1].lower()
    assert not found or plain.startswith(("127.", "localhost", "[::1]", "[::ffff:127.", "[0"))
