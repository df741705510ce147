"""The running service, over real connections of this machine."""

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import BadRequestError, OpenAI

from racro_pl.evaluation.writers import Task, Written
from racro_pl.service.limits import Limits
from racro_pl.text.reasoner_prompt import joint_messages, reasoner_messages
from racro_pl.types import Question
from tests.helpers.service import (
    EchoReasoner,
    SizeWriter,
    asking,
    data_url,
    picture,
    request_head,
    running_service,
    wait_until,
)
from tests.unit.service.test_streaming_reasoner import event, streaming


def test_the_reasoner_reads_what_training_would_show_it() -> None:
    reasoner = EchoReasoner()
    with running_service(SizeWriter(), reasoner, mode="caption+tentative") as running:
        answer = running.chat(asking("how wide ?", picture(8, 6))).json()
    caption = "1 of 8 x 6 for how wide ?"
    expected = joint_messages("how wide ?", caption, "\\boxed{8 x 6}")
    assert reasoner.chats == [expected]
    assert answer["choices"][0]["message"]["content"] == f"read: {expected[-1]['content']}"
    assert answer["racro"]["captions"] == [
        {"message": 0, "question": "how wide ?", "caption": caption, "tentative_answer": "\\boxed{8 x 6}"}
    ]


def test_a_conversation_keeps_the_captions_of_earlier_images() -> None:
    reasoner, writer = EchoReasoner(), SizeWriter()
    first = asking("how wide ?", picture(8, 6))
    with running_service(writer, reasoner) as running:
        running.chat(first)
        running.chat(first, {"role": "assistant", "content": "8"}, asking("and this ?", picture(9, 9)))
    assert sum(writer.batches) == 2, "the first image was described once"
    system, user, assistant, last = reasoner.chats[-1]
    assert user["content"] == reasoner_messages("how wide ?", "1 of 8 x 6 for how wide ?")[-1]["content"]
    assert assistant == {"role": "assistant", "content": "8"}
    assert "1 of 9 x 9 for and this ?" in last["content"]


def test_text_alone_goes_to_the_reasoner_as_it_is(service) -> None:
    answer = service.chat({"role": "user", "content": "What is <think> in HTML?"}).json()
    assert answer["choices"][0]["message"]["content"] == "read: What is <think> in HTML?"
    assert answer["racro"]["captions"] == []


def test_an_openai_client_asks_plain_and_streaming(service) -> None:
    client = OpenAI(base_url=service.url, api_key="none", max_retries=0)
    messages = [asking("how many ?", picture(), picture(4, 4))]
    plain = client.chat.completions.create(model="racro", messages=messages)
    assert "2 of 8 x 6 for how many ?" in plain.choices[0].message.content
    events = list(
        client.chat.completions.create(
            model="racro", messages=messages, stream=True, extra_body={"racro": {"captions": "stream"}}
        )
    )
    texts = [event.choices[0].delta.content or "" for event in events]
    assert texts[1] == "> 2 of 8 x 6 for how many ?\n\n"
    assert "".join(texts[2:]) == plain.choices[0].message.content
    assert events[-1].choices[0].finish_reason == "stop"
    assert [model.id for model in client.models.list()] == ["racro"]
    with pytest.raises(BadRequestError, match="not fetched"):
        client.chat.completions.create(
            model="racro",
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}],
        )


def test_a_request_as_vlmevalkit_sends_it_is_answered() -> None:
    """Its client for OpenAI's API posts JSON itself: a key, JPEG data URLs with ``detail``, sampling fields."""
    image = {"url": data_url(picture(12, 9, "JPEG"), "jpeg"), "detail": "low"}
    parts = [{"type": "image_url", "image_url": image}, {"type": "text", "text": "how wide ?"}]
    payload = {
        "model": "racro", "n": 1, "temperature": 0, "max_tokens": 2048,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}],
    }  # fmt: skip
    with running_service(SizeWriter(), EchoReasoner(), key="sk-of-the-client") as running:
        reply = running.client.post("/v1/chat/completions", json=payload)
    assert reply.status_code == 200
    assert "1 of 12 x 9 for how wide ?" in reply.json()["choices"][0]["message"]["content"]
    assert reply.json()["racro"]["unused_fields"] == ["temperature", "max_tokens"]


def test_captions_of_requests_at_the_same_time_share_batches() -> None:
    ready = threading.Event()
    writer = SizeWriter(ready)
    with running_service(writer, EchoReasoner()) as running, ThreadPoolExecutor(32) as pool:
        asked = [pool.submit(running.chat, asking(f"q{index} ?", picture())) for index in range(32)]
        # The first batch is under way, all other orders are there.
        wait_until(lambda: sum(writer.batches) + running.batcher._orders.qsize() == 32)
        ready.set()
        answers = [each.result() for each in asked]
    assert [answer.status_code for answer in answers] == [200] * 32
    assert all(f"for q{index} ?" in answer.text for index, answer in enumerate(answers))
    assert sum(writer.batches) == 32
    assert len(writer.batches) <= 3  # of 16 at most, the first perhaps of one


def test_a_full_line_says_so_and_when_to_come_back() -> None:
    ready, limits = threading.Event(), Limits(working=1, waiting=1)
    with running_service(SizeWriter(ready), EchoReasoner(), limits=limits) as running, ThreadPoolExecutor(2) as pool:
        first = [pool.submit(running.chat, asking(f"q{index}", picture())) for index in range(2)]
        running.wait_until_in_line(working=1, waiting=1)
        refused = [running.chat(asking("too many", picture())) for _ in range(3)]
        ready.set()
        assert [each.result().status_code for each in first] == [200, 200]
        assert running.chat({"role": "user", "content": "later"}).status_code == 200
    assert [answer.status_code for answer in refused] == [429] * 3
    assert all(answer.headers["retry-after"].isdecimal() for answer in refused)


@pytest.mark.parametrize(
    ("image", "why"),
    [(b"no picture", "garbage"), (picture()[:40], "cut off"), (picture(format="GIF"), "another format"),
     (picture(5000, 4000), "too many pixels")],
)  # fmt: skip
def test_an_unusable_image_is_one_bad_request(service, image, why) -> None:
    answer = service.chat(asking("how many ?", image))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "image"), why
    assert service.chat(asking("how many ?", picture())).status_code == 200


def test_a_captioner_or_reasoner_that_fails_is_a_bad_gateway(caplog: pytest.LogCaptureFixture) -> None:
    writer = SizeWriter()
    writer.error = RuntimeError("secret at 0x7f00")
    with running_service(writer, EchoReasoner()) as running:
        broken = running.chat(asking("how many ?", picture()))
        assert (broken.status_code, broken.json()["error"]["code"]) == (502, "captioner")
        assert "secret" not in broken.text
        assert "the captioner failed on a text: RuntimeError: secret at 0x7f00" in caplog.text
        writer.error = None
        assert running.chat(asking("how many ?", picture())).status_code == 200
    with running_service(SizeWriter(), EchoReasoner(error="timeout: at http://10.0.0.1")) as running:
        broken = running.chat(asking("how many ?", picture()))
        assert (broken.status_code, broken.json()["error"]["code"]) == (502, "reasoner")
        assert "10.0.0.1" not in broken.text
        assert "the reasoner gave no answer: timeout: at http://10.0.0.1" in caplog.text
        events = running.chat(asking("how many ?", picture()), stream=True).text.split("\n\n")
        assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "reasoner"


def test_a_text_that_the_captioner_fails_on_is_no_one_elses_failure(caplog: pytest.LogCaptureFixture) -> None:
    class Picky(SizeWriter):
        def write(self, work: Sequence[tuple[Question, Task]]) -> Iterator[Written]:
            if any("bad" in question.text for question, _ in work):
                raise TypeError("bad text")
            return super().write(work)

    writer = Picky(threading.Event())
    with running_service(writer, EchoReasoner()) as running, ThreadPoolExecutor(4) as clients:
        first = clients.submit(running.chat, asking("first", picture()))
        wait_until(lambda: bool(writer.batches))  # it holds the thread while the others gather
        others = [clients.submit(running.chat, asking(text, picture())) for text in ("good", "bad", "fine")]
        wait_until(lambda: running.batcher._orders.qsize() == 3)
        writer.ready.set()
        assert first.result().status_code == 200
        assert [other.result().status_code for other in others] == [200, 502, 200]
    assert "failed on 3 texts together, which are written one by one: TypeError: bad text" in caplog.text


def test_a_captioner_that_is_gone_is_a_bad_gateway_too(caplog: pytest.LogCaptureFixture) -> None:
    class Gone(SizeWriter):
        def write(self, work: Sequence[tuple[Question, Task]]) -> Iterator[Written]:
            errors = ("connection failed: 10.0.0.1", "cannot be asked: a special token")
            yield from (Written(*each, None, error=errors["special" in each[0].text]) for each in work)

    with running_service(Gone(), EchoReasoner()) as running:
        broken = running.chat(asking("how many ?", picture()))
        assert (broken.status_code, broken.json()["error"]["code"]) == (502, "captioner")
        assert "10.0.0.1" not in broken.text
        assert "the captioner failed: connection failed: 10.0.0.1" in caplog.text
        refused = running.chat(asking("special ?", picture()))
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages[0]")


@pytest.mark.parametrize("images", [(), (picture(),)])
def test_half_an_emoji_is_replaced(service, images) -> None:
    body = json.dumps({"messages": [asking("half \ud83d one", *images)]}).encode()
    answer = service.client.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert "half \ufffd one" in answer.json()["choices"][0]["message"]["content"]


def test_half_an_emoji_of_the_reasoner_is_passed_on() -> None:
    with (
        streaming(lambda: [event("red \ud83d", "length")]) as reasoner,
        running_service(SizeWriter(), reasoner) as running,
    ):
        choice = running.chat({"role": "user", "content": "hi"}).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("red \ud83d", "length")


def test_what_nobody_foresaw_has_the_same_form_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(EchoReasoner):
        def submit(self, prompts):
            raise RuntimeError("secret at 0x7f00")

    with running_service(SizeWriter(), Broken()) as running:
        answer = running.chat({"role": "user", "content": "hi"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
        assert "secret" not in answer.text
        assert "RuntimeError: secret at 0x7f00" in caplog.text
        assert 'racro_requests_total{status="500"} 1.0' in running.client.get("/metrics").text


def test_errors_outside_the_routes_have_the_same_form(service) -> None:
    for answer, status in ((service.client.get("/v2"), 404), (service.client.put("/v1/models"), 405)):
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_every_client_that_may_work_or_wait_has_a_connection() -> None:
    ready, limits = threading.Event(), Limits(working=60, waiting=10)
    with (
        running_service(SizeWriter(ready), EchoReasoner(), limits=limits) as running,
        ThreadPoolExecutor(70) as clients,
    ):
        asked = [clients.submit(running.chat, asking(f"how many {index} ?", picture())) for index in range(70)]
        running.wait_until_in_line(working=60, waiting=10)
        ready.set()
        assert {each.result().status_code for each in asked} == {200}


def test_an_answer_that_does_not_come_ends_at_the_deadline() -> None:
    ready, limits = threading.Event(), Limits(deadline_s=0.3)
    with running_service(SizeWriter(ready), EchoReasoner(), limits=limits) as running:
        answer = running.chat(asking("how many ?", picture()))
        ready.set()
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline")


def test_a_client_that_hangs_up_makes_room() -> None:
    ready, limits = threading.Event(), Limits(working=1, waiting=0)
    with running_service(SizeWriter(ready), EchoReasoner(), limits=limits) as running:
        body = json.dumps({"messages": [asking("how many ?", picture())]}).encode()
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(request_head(running.port, len(body)) + body)
            running.wait_until_in_line(working=1)
            assert running.chat({"role": "user", "content": "hi"}).status_code == 429
        running.wait_until_in_line(working=0)
        assert running.chat({"role": "user", "content": "hi"}).status_code == 200
        ready.set()


def test_a_reasoner_that_never_ends_is_cut_off_at_the_deadline() -> None:
    def endless():
        while True:
            yield event("more ")
            time.sleep(0.02)

    asked = {"role": "user", "content": "how many ?"}
    limits = Limits(deadline_s=0.3, working=1, waiting=0)
    with streaming(endless) as reasoner, running_service(SizeWriter(), reasoner, limits=limits) as running:
        for _ in range(2):  # the first one's place is free again
            answer = running.chat(asked)
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline")
    limits = Limits(deadline_s=3.0)  # enough for a first piece
    with streaming(endless) as reasoner, running_service(SizeWriter(), reasoner, limits=limits) as running:
        events = running.chat(asked, stream=True).text.split("\n\n")
        assert "more " in events[1]
        assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "deadline"


def test_requests_and_seconds_are_counted(service) -> None:
    service.chat(asking("how many ?", picture()))
    text = service.client.get("/metrics").text
    assert 'racro_requests_total{status="200"}' in text
    assert 'racro_seconds_count{part="captions"}' in text
    assert service.client.get("/health").json() == {"status": "ok"}


def test_stopping_ends_the_captioner() -> None:
    writer = SizeWriter()
    before = threading.active_count()
    with running_service(writer, EchoReasoner()) as running:
        running.chat(asking("how many ?", picture()))
    assert writer.closed
    wait_until(lambda: threading.active_count() <= before)  # the decoder's sees its process end a little later
