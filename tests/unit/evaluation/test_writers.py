import base64
import io

import pytest
import torch
from PIL import Image

from racro_pl.evaluation.settings import CaptionerSettings
from racro_pl.evaluation.writers import data_url, open_writer
from racro_pl.figure_world.world import figure_questions
from racro_pl.types import ImageRef, Question, RacroError
from tests.fakes.reasoner_server import FaultServer

CPU = torch.device("cpu")


def png(width: int, height: int) -> ImageRef:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (10, 200, 30)).save(buffer, "PNG")
    return ImageRef(data=buffer.getvalue())


def question(name: str, *images: ImageRef, text: str = "what is it ?") -> Question:
    return Question(name, images, text, "red", "text", source="figures")


def served(url: str, **more) -> CaptionerSettings:
    return CaptionerSettings(url + "/v1", "served", max_new_tokens=16, **more)


def decoded(part: dict) -> Image.Image:
    head, _, body = part["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


def test_both_texts_are_greedy_and_the_same_in_batches_of_any_size():
    questions = figure_questions("test", 5)
    work = [(question, task) for question in questions for task in ("caption", "tentative")]
    texts = []
    for batch_size in (1, 4):
        settings = CaptionerSettings("embedded:figure-captioner", "it", max_new_tokens=12, batch_size=batch_size)
        writer = open_writer(settings, CPU)
        texts.append([(item.question.id, item.task, item.text) for item in writer.write(work)])
        writer.close()
    assert texts[0] == texts[1]
    assert [(name, task) for name, task, _ in texts[0]] == [(question.id, task) for question, task in work]
    assert all(text for _, _, text in texts[0])


def test_a_question_that_cannot_be_asked_does_not_take_the_others_away():
    broken = question("broken", ImageRef(data=b"no image"))
    special = question("special", png(56, 56), text="what <|image_pad|> ?")
    good = question("good", png(56, 56))
    writer = open_writer(CaptionerSettings("embedded:figure-captioner", "it", max_new_tokens=4), CPU)
    found = {item.question.id: item for item in writer.write([(q, "caption") for q in (broken, special, good)])}
    assert found["good"].text
    assert found["broken"].text is None
    assert "not a readable image" in found["broken"].error
    assert "special token" in found["special"].error


def test_a_server_gets_the_prompt_of_the_task_with_the_images_in_place():
    with FaultServer() as server:
        writer = open_writer(served(server.url), CPU)
        first = question("q", png(60, 60), png(80, 60), text="same ?")
        items = list(writer.write([(first, "caption"), (first, "tentative")]))
        writer.close()
        chats = sorted(server.chats, key=lambda chat: str(chat["messages"][0]["content"]), reverse=True)
    assert [item.task for item in items] == ["caption", "tentative"]
    caption, tentative = (chat["messages"] for chat in chats)
    assert "describe the image" in caption[0]["content"][0]["text"]
    parts = caption[1]["content"]
    assert [part["type"] for part in parts] == ["image_url", "image_url", "text"]
    assert [decoded(part).size for part in parts[:2]] == [(60, 60), (80, 60)]
    assert tentative[1]["content"][2]["text"].endswith("MUST BE put in \\boxed{}.")
    assert chats[0]["temperature"] == 0


def test_a_server_s_failure_is_the_item_s_error():
    with FaultServer(["400"]) as server:
        writer = open_writer(served(server.url), CPU)
        found = list(
            writer.write([(question("q", png(60, 60)), "caption"), (question("b", ImageRef(data=b"")), "caption")])
        )
        writer.close()
    assert [item.text for item in found] == [None, None]
    assert "HTTP 400" in found[0].error
    assert "cannot be asked" in found[1].error


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [((100, 50), (1, 10**6), (100, 50)), ((100, 50), (1, 1250), (50, 25)), ((10, 5), (200, 10**6), (20, 10))],
)
def test_images_are_scaled_into_the_limits(size, limits, expected):
    assert decoded({"image_url": {"url": data_url(png(*size), *limits)}}).size == expected


def test_a_server_has_its_own_precision():
    with pytest.raises(RacroError, match="leave them out"):
        open_writer(served("http://localhost:1", quantization="nf4"), CPU)
