"""Whatever a server sends: an answer, or a fault that says why; never another exception, never a wait without end."""

from __future__ import annotations

import contextlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from racro_pl.reward.http_session import read_reply, require_model
from racro_pl.serving import chat_client
from racro_pl.serving.chat_client import Fault
from racro_pl.serving.network import is_loopback
from racro_pl.serving.replies import BREAKS, MAX_COUNT, MalformedReply, least_tokens, read_completion, read_usage
from racro_pl.text.answers import visible_text

NAMES = st.sampled_from(
    ["choices", "message", "content", "reasoning", "reasoning_content", "error", "detail", "finish_reason", "usage",
     "prompt_tokens", "completion_tokens", "type", "text", "thinking", "refusal", "code"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        name: JSON | st.text() | st.just("<think>") | st.lists(st.dictionaries(NAMES, JSON, max_size=3), max_size=3)
        for name in ("content", "reasoning", "reasoning_content", "refusal")
    },
)
CHOICES = st.fixed_dictionaries({"message": MESSAGES | JSON}, optional={"finish_reason": JSON, "error": JSON})


def completion(finish="stop", **message):
    return json.loads(json.dumps({"choices": [{"message": message, "finish_reason": finish}]}))


@given(JSON | st.fixed_dictionaries({"choices": st.lists(CHOICES, max_size=2)}, optional={"usage": JSON}))
def test_any_json_is_an_answer_or_says_why_it_is_none(data):
    """Whatever is an answer shows a text; whatever shows none says why, shortly."""
    usage = read_usage(data)
    assert usage is None or all(type(count) is int and 0 <= count <= MAX_COUNT for count in usage)
    with contextlib.suppress(MalformedReply):
        found = read_completion(data)
        shows = bool(visible_text(found.text).strip())
        broken_off = bool(data["choices"][0].get("error")) or found.finish_reason in BREAKS
        assert (found.problem is None) == (shows and not broken_off)
        assert found.problem is None or len(": ".join(found.problem)) < 600
    with contextlib.suppress(Fault):
        require_model(data, "tiny")
    with contextlib.suppress(Fault):
        reply = read_reply(data, [{"role": "user", "content": ""}])
        assert reply.visible() == reply


@given(st.text(max_size=50), st.text(min_size=1, max_size=50))
def test_a_completion_is_read_back_with_its_thoughts(content, thoughts):
    assert read_completion(completion(content=content)).text == content
    for name in ("reasoning", "reasoning_content"):
        found = read_completion(completion(content=content, **{name: thoughts})).text
        assert found == f"<think>{thoughts}</think>{content}"
        found = read_completion(completion(content=None, **{name: thoughts}))
        assert found.text == f"<think>{thoughts}</think>"


@given(st.lists(st.text(max_size=20), max_size=4), st.text(max_size=20))
def test_a_list_of_parts_is_their_text(texts, thought):
    parts = [{"type": "text", "text": text} for text in texts]
    assert read_completion(completion(content=parts)).text == "".join(texts)
    mistral = [{"type": "thinking", "thinking": [{"type": "text", "text": thought}]}, *parts]
    expected = (f"<think>{thought}</think>" if thought else "") + "".join(texts)
    assert read_completion(completion(content=mistral)).text == expected


@given(st.sampled_from(["stop", "length", "content_filter", "error", None, 3]), st.text(max_size=20))
def test_thoughts_alone_are_never_an_answer(finish, answer):
    thoughts = rf"{answer} so \boxed{{42}}"
    for message in (
        {"content": None, "reasoning_content": thoughts}, {"content": " ", "reasoning": thoughts}, {"content": None},
        {"content": ""}, {"content": "<think>"}, {"content": []}, {},
    ):  # fmt: skip
        found = read_completion(completion(finish, **message))
        assert found.problem is not None, message
        assert found.problem[0] == ("content filter" if finish == "content_filter" else "no answer")
        assert found.truncated == (finish == "length")


WORDS = st.lists(st.sampled_from(["red", "don't", "12", "(a", "b)", "x_1", "é", "naïve", "...", "\n", "日本", "7."]))


@given(WORDS)
def test_no_tokenizer_needs_fewer_tokens_than_are_counted(words):
    """Against the splitting rule of BPE tokenizers of the GPT-4o kind, which have at least a token for each piece."""
    text = " ".join(words)
    least = least_tokens([{"role": "user", "content": text}])
    pieces = re.findall(r"'(?:[sdmt]|ll|ve|re)|[^\r\n\w]?[^\W\d_]+(?:'[a-z]+)?|\d{1,3}|[^\s\w]+|_|\s+", text)
    assert least <= len(pieces)


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
    client = chat_client.ChatClient("http://127.0.0.1:1/v1", "key", 1, 1.0, 0.0)
    message = client._quote(chat_client._server_message(body))
    assert len(message) <= 300
    assert "\n" not in message


@given(st.text(max_size=30))
def test_a_host_is_loopback_only_when_it_is(host):
    try:
        found = is_loopback(f"http://{host}/v1")
    except ValueError:  # no URL at all
        return
    plain = host.split("@")[-1].lower()
    assert not found or plain.startswith(("127.", "localhost", "[::1]", "[::ffff:127.", "[0", "0.0.0.0", "[::]"))
