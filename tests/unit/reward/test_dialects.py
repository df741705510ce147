"""Servers as they answer: each with the settings that docs/reasoners.md names for it, and with those that fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from racro_pl.reward import HttpReasoner, ReasonerError, ReasonerPool, Scorer
from racro_pl.reward.reasoner import Reply
from racro_pl.types import Question
from tests.fakes import dialects
from tests.fakes.dialects import ANSWER, THOUGHT, StandIn, completion

QUESTION = Question("q", (), "What is 6 * 7?", "42", "math")
PAGE = Path(__file__).parents[3] / "docs/reasoners.md"


def documented(server: str) -> dict:
    """The settings that the page gives for a server."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(server)}\n.*?```yaml\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    return yaml.safe_load(found[1])["init_args"]


def client(url: str, **settings) -> HttpReasoner:
    settings = {"attempts": 2, "backoff_s": 0.01, "deadline_s": 100.0, **settings}
    return HttpReasoner(**(settings | {"url": url, "api_key_env": None}))


def score(reasoner, captions=("a caption",)):
    scorer = Scorer(reasoner, cache="off", max_unscored_share=1.0)
    scorer.check()
    rewards = scorer.submit(QUESTION, captions).result()
    stats = scorer.drain_stats()
    scorer.close()
    return rewards, stats


@pytest.mark.parametrize(
    ("server", "reply", "names"),
    [
        ("vLLM", dialects.thinking_vllm, ["Qwen/Qwen3-8B"]),
        ("SGLang", dialects.thinking_vllm, ["Qwen/Qwen3-8B"]),
        ("llama.cpp", dialects.llama_cpp(8192), ["qwen3-8b"]),
        ("Ollama", dialects.ollama(16384), ["qwen3:8b", "llama3.2:latest"]),
        ("LM Studio", dialects.lm_studio(8192), ["qwen/qwen3-8b", "another"]),
        ("Hosted reasoning models", dialects.openai_reasoning, ["o-1", "o-2"]),
    ],
)
def test_the_settings_of_the_page_work(server, reply, names):
    listing = (200, {"data": [{"id": name} for name in names]})
    with StandIn(reply, listing) as stand_in:
        rewards, stats = score(client(**(documented(server) | {"url": stand_in.url})))
        assert rewards.total == (1.0,)
        assert (stats["answered"], stats["truncated"]) == (1, 0)
        assert stats["prompt_tokens"] > 0
        # The check asks with the fields of every other request.
        first, second = stand_in.bodies
        assert {**first, "messages": 0} == {**second, "messages": 0}


def test_a_hosted_reasoning_model_refuses_the_defaults_with_its_own_words():
    with StandIn(dialects.openai_reasoning) as server:
        with pytest.raises(ReasonerError, match="HTTP 400: Unsupported parameter: 'max_tokens'.*max_completion_tokens"):
            client(server.url).check()
        settings = {"max_tokens": None, "temperature": None, "top_p": None}
        client(server.url, **settings, extra_body={"max_completion_tokens": 99}).check()
        assert server.bodies[-1].keys() == {"model", "stream", "messages", "max_completion_tokens"}
        # The other way to leave fields out.
        client(server.url, extra_body=settings).check()
        assert server.bodies[-1].keys() == {"model", "stream", "messages"}


def test_a_thinking_model_cut_in_its_thoughts_is_unscored_and_counted():
    with StandIn(dialects.thinking_vllm) as server:
        rewards, stats = score(client(server.url, max_tokens=50), ["one", "two"])
        assert rewards.scored == (False, False)
        assert rewards.reasons[0].startswith("no answer: only thoughts")
        assert "raise max_tokens" in rewards.reasons[0]
        assert (stats["replies"], stats["truncated"], stats["answered"]) == (2, 2, 0)
        assert stats["completion_tokens"] == 3 * 50  # the check's answer is paid for as well
        off = {"chat_template_kwargs": {"enable_thinking": False}}
        assert score(client(server.url, max_tokens=50, extra_body=off))[0].total == (1.0,)


def test_the_first_question_warns_of_a_model_that_only_thinks(caplog):
    with StandIn(lambda body: (200, completion(None, reasoning_content=ANSWER))) as server:
        client(server.url).check()
    assert "no visible answer to its first question (no answer: only thoughts" in caplog.text


LONG = "A red square stands to the left of a blue circle. " * 40


def test_llama_cpp_refuses_a_long_prompt_in_its_own_words():
    with StandIn(dialects.llama_cpp(200)) as server:
        rewards, _ = score(client(server.url), [LONG, "short"])
    assert rewards.scored == (False, True)
    assert rewards.reasons[0].startswith("HTTP 400: the request exceeds the available context size")


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_prompt_that_ollama_cut_is_refused(share):
    """Its answer would be about a part of the caption; ``usage`` alone tells."""
    context = int(share * 1920)
    with StandIn(dialects.ollama(context)) as server:
        rewards, _ = score(client(server.url, concurrency=1), [LONG * 4, "short"])
        assert dialects.token_count(server.bodies[1]) > 1920  # the caption alone
    assert rewards.scored == (False, True)
    assert rewards.reasons[0].startswith(f"prompt cut: the server read {context} tokens of a prompt of at")
    assert "OLLAMA_CONTEXT_LENGTH" in rewards.reasons[0]


def test_a_tokenizer_with_whole_sentences_is_not_taken_for_a_cut():
    """As the embedded models have: few tokens for many words, but short prompts."""
    for read in (0, 13, 300):
        with StandIn(lambda body, read=read: (200, completion(usage=(read, 5)))) as server:
            assert score(client(server.url), [LONG])[0].scored == (True,)


def test_a_whole_prompt_is_not_taken_for_a_cut_one():
    texts = [
        LONG,
        "don't; it's 12 a.m. (or 13?) on the 3rd: x_1 = {2.5}",
        "naïve café",
        "日本語のテキスト",
        "\\frac{1}{2}" * 9,
    ]
    with StandIn(dialects.ollama(10**6)) as server:
        rewards, _ = score(client(server.url), texts)
    assert rewards.scored == (True,) * len(texts)


def test_lm_studio_says_what_is_wrong_in_a_response_of_status_200():
    with StandIn(dialects.lm_studio(200)) as server:
        rewards, _ = score(client(server.url), [LONG, "short"])
        assert len(server.bodies) == 3  # not tried again
    assert rewards.reasons == (
        "server error: The number of tokens to keep from the initial prompt is greater than the context length.", None
    )  # fmt: skip


def test_an_error_object_in_a_response_of_status_200_counts_as_its_code():
    with StandIn(dialects.router) as server:
        with pytest.raises(ReasonerError, match=r"HTTP 502: Provider returned error \(attempt 2\)"):
            client(server.url).check()
        assert len(server.bodies) == 2  # 502 may heal


def test_without_a_list_of_models_a_name_is_enough():
    with StandIn(lambda body: (200, completion(model="served"))) as good:
        for listing in ((404, {"detail": "Not Found"}), (405, {}), (200, {"oops": 1}), (500, {})):
            with StandIn(lambda body: (200, completion()), listing) as server:
                reasoner = client(server.url, model="tiny", attempts=1)
                reasoner.check()
                assert score(reasoner)[0].total == (1.0,)
                with pytest.raises(ReasonerError, match="no reasoner at"):
                    client(server.url, attempts=1).check()
        assert good.bodies == []
    bare = (200, [{"id": "tiny"}])  # Together's list is not in an object
    with StandIn(lambda body: (200, completion()), bare) as server:
        client(server.url).check()


def test_neither_a_list_nor_a_chat_is_told_together():
    with (
        StandIn(lambda body: (404, {"detail": "Not Found"}), (404, {"detail": "Not Found"})) as server,
        pytest.raises(ReasonerError, match=r"does not list its models \(HTTP 404: .*\) but answers no chat: HTTP 404"),
    ):
        client(server.url, model="tiny").check()


SHAPES = {
    "null, answer in reasoning_content": (completion(None, reasoning_content=ANSWER), "no answer: only thoughts"),
    "empty, answer in reasoning": (completion("", reasoning=ANSWER), "no answer: only thoughts"),
    "white space": (completion(" \n", reasoning=ANSWER), "no answer: only thoughts"),
    "nothing": (completion(None), "no answer: empty text"),
    "thought in the text, unclosed": (completion(f"<think>{ANSWER}"), "no answer: only thoughts"),
    "thought in the text, nothing after": (completion(f"<think>{ANSWER}</think>\n"), "no answer: only thoughts"),
    "error": (completion("", finish="error"), "no answer: empty, finish_reason 'error'"),
    "content filter": (completion("", finish="content_filter"), "content filter: the server withheld"),
    "broken off": (completion("Let me", finish="error"), "broken off: after 6 characters, finish_reason 'er"),
    "aborted": (completion(ANSWER, finish="abort"), "broken off: after"),
    "filtered in the middle": (completion("Let me", finish="content_filter"), "content filter: after 6 characters"),
    "an error in the choice": (
        {"choices": [{"message": {"content": "Let me"}, "finish_reason": "stop", "error": {"message": "overloaded"}}]},
        "broken off: after 6 characters, finish_reason 'stop': 'overloaded'",
    ),
    "an error beside the choices": (completion("Let me") | {"error": {"message": "lost"}}, "broken off: after 6"),
    "cut before the text": (completion("", finish="length"), "no answer: empty text, finish_reason 'length' (cut"),
    "refusal": (completion(None, refusal="I cannot help."), "no answer: empty, finish_reason 'stop': 'I cannot help.'"),
    "tool call": (completion(None, finish="tool_calls", tool_calls=[{}]), "no answer: empty text"),
    "parts without text": (completion([{"type": "image_url", "image_url": {}}]), "bad response: the message's content"),
    "parts": (completion([{"type": "text", "text": "So "}, {"type": "text", "text": r"\boxed{42}."}]), None),
    "parts with thoughts": (
        completion([{"type": "thinking", "thinking": [{"type": "text", "text": r"\boxed{7}?"}]},
                    {"type": "text", "text": ANSWER}]), None,
    ),
    "thoughts beside": (completion(ANSWER, reasoning_content=r"\boxed{7}?"), None),
    "cut after the answer": (completion(ANSWER, finish="length"), None),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_replies(shape):
    data, problem = SHAPES[shape]
    plain = iter([(200, completion("2"))])  # of the check
    with StandIn(lambda body: next(plain, (200, data))) as server:
        rewards, stats = score(client(server.url))
    if problem is None:
        assert (rewards.total, rewards.scored) == ((1.0,), (True,))
    else:
        assert rewards.scored == (False,)
        assert rewards.reasons[0].startswith(problem)
        assert not stats["answered"]
    assert stats["truncated"] == (data["choices"][0]["finish_reason"] == "length")


def test_a_text_that_shows_nothing_is_no_answer_whoever_gives_it():
    """Cached ones of earlier versions, and reasoners of one's own."""
    for text in ("", " \n", "<think>so", "<think>so</think>"):
        assert Reply(text=text).visible().kind == "no answer"
    assert Reply(text="x").visible() == Reply(text="x")


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503])
def test_statuses_that_may_heal_are_tried_again(status):
    script = iter([(200, completion()), (status, {"error": {"message": "try again"}})])
    with StandIn(lambda body: next(script, (200, completion()))) as server:
        assert score(client(server.url))[0].total == (1.0,)
        assert len(server.bodies) == 3


def test_a_key_at_the_end_of_a_long_message_is_blanked_whole(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-0123456789")
    for length in (287, 290, 295, 299):
        text = "x" * length + "sk-0123456789"
        with StandIn(lambda body, text=text: (400, {"error": {"message": text}})) as server:
            reasoner = HttpReasoner(server.url, api_key_env="SOME_KEY", attempts=1)
            with pytest.raises(ReasonerError) as error:
                reasoner.check()
            reasoner.close()
        assert "sk-" not in str(error.value)


def test_a_pool_adds_up_what_its_servers_used():
    def answers(body):
        return 200, completion(usage=(10, 5))

    def thinks(body):
        return 200, completion(None, reasoning=THOUGHT, usage=(10, 7))

    price = {"price_per_million_tokens": (1e6, 2e6), "model": "tiny"}
    with StandIn(answers) as one, StandIn(thinks) as two:
        pool = ReasonerPool([client(one.url, **price), client(two.url, **price)])
        replies = [future.result(200) for future in pool.submit([[{"role": "user", "content": "?"}]] * 6)]
        pool.close()
        # No answer is the model's own doing: no other server is asked, and none is set aside.
        assert len(replies) == len(one.bodies) + len(two.bodies) == 6
        assert not any(endpoint.away for endpoint in pool._endpoints)
        assert sorted(reply.kind for reply in replies) == [""] * len(one.bodies) + ["no answer"] * len(two.bodies)
        assert pool.usage.prompt_tokens == 60
        assert pool.usage.completion_tokens == 5 * len(one.bodies) + 7 * len(two.bodies)
        assert pool.usage.cost == pytest.approx(60 + 2 * pool.usage.completion_tokens)
    with pytest.raises(ValueError, match="servers with and without a price"):
        ReasonerPool([HttpReasoner(**price), HttpReasoner()])
