"""The page in a real browser: upload, ask, read the answers; on a phone, in the dark; nothing goes elsewhere."""

import os
import threading
from pathlib import Path

import pytest

from racro_pl.demo import Answers, Demo, answer_all, table
from racro_pl.pipeline import Pipeline, question_of
from racro_pl.serving.addresses import free_port
from racro_pl.types import RacroError
from tests.helpers.service import EchoReasoner

FIGURES = Path(__file__).parents[2] / "docs" / "images" / "figures.png"
ASKED = "what is the color of square ?"


def test_answers_come_one_by_one_and_texts_stay_texts() -> None:
    reasoners = {"echo": EchoReasoner()}
    with Pipeline(reasoner=reasoners["echo"], max_tokens=12) as pipeline:
        steps = list(answer_all(question_of(FIGURES, ASKED), {"<b>": pipeline}, reasoners))
    assert steps[0] == {"<b>": Answers(answers=(None,))}
    assert [step["<b>"].caption is not None for step in steps] == [False, True, True, True]
    assert steps[-1]["<b>"].answers[0]
    page = table({"<b>": Answers("<img src=x onerror=alert(1)>", "", (None,))}, ["echo"])
    assert "<img" not in page
    assert "&lt;b&gt;" in page
    assert "(empty)" in page
    assert "class='waiting'" in page


def test_what_fails_says_so_in_its_place_and_hides_nothing_else(monkeypatch) -> None:
    def fail(question, task):
        raise RacroError("the server is gone")

    reasoners = {"down": EchoReasoner("timeout: no complete answer"), "echo": EchoReasoner()}
    question = question_of(FIGURES, ASKED)
    with Pipeline(max_tokens=12) as good, Pipeline() as bad:
        monkeypatch.setattr(bad, "write", fail)
        *_, last = answer_all(question, {"bad": bad, "good": good}, reasoners)
    assert last["bad"] == Answers("(the server is gone)", "", ("", ""))
    assert last["good"].caption
    assert "no complete answer" in (last["good"].answers[0] or "")
    assert ASKED in (last["good"].answers[1] or "")


@pytest.fixture(scope="module")
def page_url():
    demo = Demo(
        {"before": Pipeline(max_tokens=12), "copy": Pipeline(max_tokens=12)},
        {"echo": EchoReasoner(), "other": EchoReasoner()},
    )
    port = free_port("127.0.0.1")
    demo.launch("127.0.0.1", port, block=False)
    yield f"http://127.0.0.1:{port}"
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    demo.close()
    assert not uploads.exists(), "uploads are removed"


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_upload_ask_and_read_the_answers(page_url, browser, width, scheme) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_url)
    page.wait_for_selector("input[type=file]", state="attached", timeout=60_000)
    page.get_by_role("button", name="Ask").click()
    page.wait_for_selector("[role=alert]", timeout=60_000)
    assert "choose a picture first" in page.inner_text("[role=alert]")
    page.set_input_files("input[type=file]", str(FIGURES))
    page.get_by_label("Question").fill(ASKED)
    page.get_by_role("button", name="Ask").click()
    page.wait_for_function(
        "document.querySelectorAll('.answers td').length == 8 && !document.querySelector('.answers .waiting')",
        timeout=90_000,
    )
    assert ASKED in page.inner_text(".answers"), "the echoing reasoner repeats the question"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out sideways"
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {page_url.split("/")[2]}
    context.close()


@pytest.mark.browser
def test_a_file_that_is_no_picture_is_named_and_one_question_is_answered_at_a_time(page_url) -> None:
    import httpx

    with httpx.Client(base_url=page_url, trust_env=False, timeout=60) as client:
        path = client.post("/gradio_api/upload", files={"files": ("photo.png", b"no picture")}).json()[0]
        asks = [each["id"] for each in client.get("/config").json()["dependencies"] if len(each["inputs"]) == 2]
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, ASKED]
        for function in asks[-2:]:
            session = {"session_hash": f"s{function}"}
            client.post("/gradio_api/queue/join", json={"data": data, "fn_index": function} | session)
            with client.stream("GET", "/gradio_api/queue/data", params=session) as events:
                answered = next(line for line in events.iter_lines() if "process_completed" in line)
            assert "not a readable image" in answered
    demo = Demo({}, {"echo": EchoReasoner()})
    asking = [each for each in demo.build().fns.values() if each.concurrency_limit == 1]
    assert len({each.concurrency_id for each in asking}) == 1, "the button and the return key share one place"
    demo.close()


@pytest.mark.browser
def test_the_page_s_server_keeps_to_itself(page_url) -> None:
    import httpx

    with httpx.Client(base_url=page_url, trust_env=False) as client:
        assert client.get("/gradio_api/file=/etc/passwd").status_code in (403, 404)
        assert client.get("/", headers={"Origin": "https://evil.example"}).headers.get(
            "access-control-allow-origin"
        ) in (None, "")
    assert threading.active_count() < 100
