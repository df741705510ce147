"""Whatever a rollout server answers: captions that were asked for, or an error that names the field."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from racro_pl.rollout.vllm.answer import Asked, Sampled, read_captions
from racro_pl.rollout.vllm.protocol import RolloutError
from racro_pl.types import Prompt

EOS, BANNED, PAD = 2, 5, 0
ASKED = Asked("adapter-1", 3, 4, vocabulary=20, eos_ids=frozenset({EOS}), banned=frozenset({BANNED}))
PROMPT = Prompt(torch.tensor([7, 8, 9]), torch.zeros(3, dtype=torch.long))


def choice(index: int, ids: list[int], reason: str = "stop", **fields: Any) -> dict[str, Any]:
    content = [{"token": "", "logprob": -0.5 * place} for place, _ in enumerate(ids)]
    return {"index": index, "finish_reason": reason, "token_ids": ids, "logprobs": {"content": content}} | fields


def answer(**fields: Any) -> dict[str, Any]:
    choices = [choice(2, [6, EOS]), choice(0, [EOS]), choice(1, [3, 4, 3, 4], "length")]
    return {"model": "adapter-1", "prompt_token_ids": [7, 8, 9], "choices": choices} | fields


def read(data: Any) -> Sampled:
    return read_captions(data, PROMPT, ASKED, PAD)


def test_a_good_answer_is_read_in_the_order_of_its_indices():
    found = read(answer())
    assert found.token_ids.tolist() == [[2, 0, 0, 0], [3, 4, 3, 4], [6, 2, 0, 0]]
    assert found.mask.sum(dim=1).tolist() == [1, 4, 2]
    assert found.logprobs.tolist() == [[0, 0, 0, 0], [0, -0.5, -1, -1.5], [0, -0.5, 0, 0]]
    assert found.truncated == (False, True, False)


def test_rounding_above_zero_is_zero():
    data = answer()
    data["choices"][0]["logprobs"]["content"][0]["logprob"] = 1e-6
    assert read(data).logprobs.max() == 0


def put(data: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    data = copy.deepcopy(data)
    inner: Any = data
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return data


LOGPROB = ("choices", 2, "logprobs", "content", 3, "logprob")
LAST = ("choices", 2, "token_ids", 3)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (LOGPROB, float("nan"), r"choices\[2\]\.logprobs\.content\[3\]\.logprob: nan; expected a number, finite"),
        (LOGPROB, float("inf"), r"\.logprob: inf;"),
        (LOGPROB, float("-inf"), r"\.logprob: -inf;"),
        (LOGPROB, -9999.0, r"\.logprob: -9999\.0; .*above -9999"),
        (LOGPROB, 50, r"\.logprob: 50; expected .* at most 0"),
        (LOGPROB, 0.01, r"\.logprob: 0\.01;"),
        (LOGPROB, None, r"\.logprob: None;"),
        (LOGPROB, "-1.5", r"\.logprob: '-1\.5';"),
        (LOGPROB, True, r"\.logprob: True;"),
        (LOGPROB, False, r"\.logprob: False;"),
        (LOGPROB, -(10**400), r"\.logprob: an integer of more than 64 bits;"),
        (LOGPROB[:-1], None, r"no choices\[2\]\.logprobs\.content\[3\]\.logprob \(found None where it belongs\)"),
        (LOGPROB[:-2], None, r"wrong choices\[2\]\.logprobs\.content: None; expected a list"),
        (LOGPROB[:-3], None, r"no choices\[2\]\.logprobs\.content"),
        (LAST, 20, r"choices\[2\]\.token_ids\[3\]: 20; expected an integer from 0 to 19"),
        (LAST, -1, r"token_ids\[3\]: -1;"),
        (LAST, 4.0, r"token_ids\[3\]: 4\.0;"),
        (LAST, 4.5, r"token_ids\[3\]: 4\.5;"),
        (LAST, "4", r"token_ids\[3\]: '4';"),
        (LAST, None, r"token_ids\[3\]: None;"),
        (LAST, True, r"token_ids\[3\]: True;"),
        (LAST, 10**30, r"token_ids\[3\]: an integer of more than 64 bits;"),
        (LAST, BANNED, r"sampled the banned tokens \[5\] \(choices\[2\]\.token_ids\)"),
        (LAST[:-1], [3] * 5, r"choices\[2\]\.token_ids: 5 tokens; expected 1 to max_new_tokens=4"),
        (LAST[:-1], [3] * 100_001, r"100001 tokens; expected 1 to max_new_tokens=4"),
        (LAST[:-1], [], r"token_ids: 0 tokens;"),
        (LAST[:-1], [3, 4, 3], r"choices\[2\]\.logprobs\.content: 4 entries; expected 3"),
        (LAST[:-1], "text", r"choices\[2\]\.token_ids: 'text'; expected a list"),
        (LAST[:-1], [3, EOS, 3, 4], r"first end token is at 1 of 4 \(choices\[2\]\)"),
        (("choices", 0, "token_ids"), [EOS, 6], r"first end token is at 0 of 2 \(choices\[0\]\)"),
        (LAST[:-1], [3, 4, 3, EOS], r"ended a caption with 'length' after token 2"),
        (("choices", 2, "finish_reason"), "stop", r"ended a caption with 'stop' after token 4"),
        (("choices", 2, "finish_reason"), "abort", r"choices\[2\]\.finish_reason: 'abort'; expected stop or length"),
        (("choices", 0, "finish_reason"), "abort", r"choices\[0\]\.finish_reason: 'abort'"),
        (("choices", 2, "finish_reason"), None, r"finish_reason: None;"),
        (("choices", 2, "finish_reason"), ["stop"], r"finish_reason: a list of 1;"),
        (("choices", 2, "index"), 0, r"choices\[\.\.\.\]\.index: .* expected each of 0 to 2 once"),
        (("choices", 2, "index"), 1.0, r"\.index: "),
        (("choices", 2, "index"), None, r"\.index: "),
        (("choices", 2), None, r"no choices\[2\]\.index"),
        (("choices",), [], r"wrong choices: 0 captions; expected 3"),
        (("choices",), None, r"wrong choices: None; expected a list"),
        (("model",), "base", r"sampled from 'base', not from the adapter 'adapter-1'"),
        (("model",), None, r"sampled from None, not"),
        (("prompt_token_ids",), None, r"wrong prompt_token_ids: None; expected a list of integers"),
        (("prompt_token_ids",), [7, 8, 9.0], r"prompt_token_ids: a list with something else in it"),
        (("prompt_token_ids",), [7, True, 9], r"prompt_token_ids"),
        (("prompt_token_ids",), [7, 8], r"2 tokens instead of 3, the first difference at 2"),
    ],
)
def test_a_wrong_field_is_named(path, value, message):
    with pytest.raises(RolloutError, match=message):
        read(put(answer(), path, value))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, inner in items for path in [(*at, key), *paths(inner, (*at, key))]]


def check(data: Any) -> None:
    message, found = "", None
    try:
        found = read(data)
    except RolloutError as error:
        message = str(error)
    if found is None:
        assert message
        assert len(message) < 1000
        assert "\n" not in message
        return
    assert found.token_ids.shape == found.mask.shape == found.logprobs.shape
    assert found.token_ids.dtype == torch.long
    assert len(found.token_ids) == len(found.truncated) == 3
    assert found.token_ids.shape[1] <= 4
    assert found.mask[:, 0].all()
    assert ((found.token_ids >= 0) & (found.token_ids < 20)).all()
    assert found.logprobs.isfinite().all()
    assert (found.logprobs <= 0).all()


@given(JSON)
def test_any_json_is_captions_or_an_error(data):
    check(data)


@given(st.sampled_from(paths(answer())), JSON)
def test_a_good_answer_with_any_field_replaced_is_captions_or_an_error(path, value):
    check(put(answer(), path, value))


@given(st.sampled_from(paths(answer())), st.data())
def test_a_good_answer_with_fields_left_out_or_twice_is_captions_or_an_error(path, data):
    changed = copy.deepcopy(answer())
    inner: Any = changed
    for step in path[:-1]:
        inner = inner[step]
    if isinstance(inner, list) and data.draw(st.booleans()):
        inner.append(copy.deepcopy(inner[path[-1]]))
    else:
        del inner[path[-1]]
    check(json.loads(json.dumps(changed)))
