"""The page in a real browser: upload, ask, read the answers; on a phone, in the dark; nothing goes elsewhere."""

import os
import threading
from pathlib import Path

import pytest

from racro_pl.demo import Answers, Demo, answer_all, table
from racro_pl.pipeline import Pipeline, question_of
from racro_pl.serving.addresses import free_port
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
def test_the_page_s_server_keeps_to_itself(page_url) -> None:
    import httpx

    with httpx.Client(base_url=page_url, trust_env=False) as client:
        assert client.get("/gradio_api/file=/etc/passwd").status_code in (403, 404)
        assert client.get("/", headers={"Origin": "https://evil.example"}).headers.get(
            "access-control-allow-origin"
        ) in (None, "")
    assert threading.active_count() < 100
