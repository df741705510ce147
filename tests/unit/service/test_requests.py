"""Requests: what is read, what is refused and by which name."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from racro_pl.service.errors import ServiceError
from racro_pl.service.limits import Limits
from racro_pl.service.requests import parse_request
from tests.helpers.service import asking, data_url, picture

SMALL = Limits(images=2, image_bytes=1000, text_characters=50, messages=3, json_depth=6)


def parse(**fields):
    return parse_request(json.dumps(fields).encode(), SMALL)


def test_a_request_is_read_whole() -> None:
    image = picture()
    request = parse(
        model="racro", messages=[{"role": "developer", "content": "Be brief."}, asking("how many ?", image, image)],
        stream=True, stream_options={"include_usage": True}, temperature=0.5, racro={"captions": "stream"},
    )  # fmt: skip
    assert [turn.role for turn in request.turns] == ["system", "user"]
    assert request.turns[1].images == (image, image)
    assert (request.turns[1].text, request.stream, request.captions) == ("how many ?", True, "stream")
    assert request.unused == ("temperature",)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [asking("x")] * 4}, "messages"),
        ({"messages": [asking("x" * 51)]}, "messages"),
        ({"messages": [asking("x", *[picture()] * 3)]}, "messages"),
        ({"messages": [asking("x"), {"role": "assistant", "content": "y"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, "messages[0]"),
        ({"messages": [{"role": "system", "content": asking("x", picture())["content"]}]}, "messages[0].content[0]"),
        ({"messages": [asking("x")], "chat_template": "{{ x }}"}, "chat_template"),
        ({"messages": [asking("x")], "chat_template_kwargs": {}}, "chat_template_kwargs"),
        ({"messages": [asking("x")], "logit_bias": {}}, "logit_bias"),
        ({"messages": [asking("x")], "n": 2}, "n"),
        ({"messages": [asking("x")], "stream": "yes"}, "stream"),
        ({"messages": [asking("x")], "racro": {"captions": "all"}}, "racro.captions"),
    ],
)
def test_what_is_not_known_or_too_much_is_refused_by_name(fields, param) -> None:
    with pytest.raises(ServiceError) as caught:
        parse(**fields)
    assert caught.value.param == param
    assert caught.value.status in (400, 413)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/x.png", "https://example.org/x.png", "file:///etc/passwd", "/etc/passwd", "",
     "data:image/svg+xml;base64,AAAA", "data:image/png,AAAA", "data:image/png;base64,A\nA=",
     "data:image/png;base64,****", data_url(b"x" * 2000)],
)  # fmt: skip
def test_images_are_data_urls_and_nothing_is_fetched(url) -> None:
    with pytest.raises(ServiceError) as caught:
        parse(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])
    assert caught.value.param == "messages[0].content[0]"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"n": NaN}', b"[" * 100_000, b'{"n": ' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_object_is_refused(body) -> None:
    with pytest.raises(ServiceError):
        parse_request(body, SMALL)


def test_deep_json_is_refused() -> None:
    nested: object = "x"
    for _ in range(7):
        nested = [nested]
    with pytest.raises(ServiceError, match="deeper than 6"):
        parse(messages=nested)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=200)
@given(
    st.dictionaries(st.sampled_from(["model", "messages", "stream", "racro", "n", "stream_options"]), json_values),
    json_values,
)
def test_no_request_raises_anything_else(fields, message) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": message}, message]} | fields).encode()
    with contextlib.suppress(ServiceError):
        assert parse_request(body, SMALL).turns
