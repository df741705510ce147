"""The service with a reasoner in its own process: its answers come from threads, and it may fail."""

import json
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from racro_pl.reward import Reply
from racro_pl.service.limits import Limits
from tests.helpers.service import EchoReasoner, SizeWriter, running_service, wait_until


def test_a_model_in_this_process_that_fails_is_a_bad_gateway_too(caplog: pytest.LogCaptureFixture) -> None:
    class OutOfMemory(EchoReasoner):
        def submit(self, prompts):
            future: Future[Reply] = Future()
            future.set_exception(RuntimeError("out of memory at 0x7f00"))
            return [future]

    with running_service(SizeWriter(), OutOfMemory()) as running:
        answer = running.chat({"role": "user", "content": "hi"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "reasoner")
        events = running.chat({"role": "user", "content": "hi"}, stream=True).text.split("\n\n")
        assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "reasoner"
        assert "0x7f00" not in answer.text
        assert "the reasoner gave no answer: RuntimeError: out of memory at 0x7f00" in caplog.text


def test_requests_are_read_while_others_wait_for_a_model_in_this_process() -> None:
    class Slow(EchoReasoner):
        def submit(self, prompts):
            self.futures = [*getattr(self, "futures", []), Future()]
            return self.futures[-1:]

    slow = Slow()
    with running_service(SizeWriter(), slow, limits=Limits(working=40)) as running, ThreadPoolExecutor(39) as clients:
        asked = [clients.submit(running.chat, {"role": "user", "content": "hi"}) for _ in range(39)]
        wait_until(lambda: len(getattr(slow, "futures", [])) == 39)
        assert running.chat({"role": "nobody", "content": "hi"}).status_code == 400
        for future in slow.futures:
            future.set_result(Reply(text="hello"))
        assert {each.result().status_code for each in asked} == {200}
