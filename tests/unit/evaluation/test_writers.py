import base64
import dataclasses
import io

import pytest
import torch
from PIL import Image

from racro_pl.evaluation.settings import CaptionerSettings
from racro_pl.evaluation.writers import data_url, open_writer
from racro_pl.figure_world.models import resolve_model
from racro_pl.figure_world.world import figure_questions
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_encoder
from racro_pl.policy.prompts import PromptEncoder
from racro_pl.text.answers import THINK_OPEN
from racro_pl.text.thoughts import without_thoughts
from racro_pl.types import ImageRef, Question, RacroError
from tests.fakes.dialects import StandIn, completion
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


THOUGHT = "It must be red."


@pytest.mark.parametrize(
    ("reply", "text", "thoughts"),
    [
        (completion("a square", reasoning_content=THOUGHT), "a square", THOUGHT),
        (completion("a square", reasoning=THOUGHT), "a square", THOUGHT),
        (completion(f"<think>\n{THOUGHT}\n</think>\n\na square\n"), "a square", THOUGHT),
        (completion(f"{THOUGHT}</think>a square"), "a square", THOUGHT),
        (completion([{"type": "text", "text": " a square "}]), "a square", ""),
        (completion(None, reasoning=THOUGHT, finish="length"), "", "no answer: only thoughts"),
        (completion(f"<think>{THOUGHT}", finish="length"), "", "no answer: only thoughts"),
    ],
)
def test_a_served_captioner_s_thoughts_are_kept_apart(reply, text, thoughts):
    with StandIn(lambda body: (200, reply)) as server:
        writer = open_writer(CaptionerSettings(server.url, "served", max_new_tokens=16), CPU)
        for found in writer.write([(question("q", png(60, 60)), task) for task in ("caption", "tentative")]):
            assert (found.text, found.error) == (text, None)
            assert found.thoughts.startswith(thoughts)
            assert found.only_thoughts == (text == "")
            assert found.truncated == (text == "")
        writer.close()


def test_a_served_captioner_that_puts_its_caption_among_its_thoughts_has_written_none():
    with StandIn(lambda body: (200, completion(None, reasoning="a square"))) as server:
        writer = open_writer(CaptionerSettings(server.url, "served", max_new_tokens=16), CPU)
        (found,) = writer.write([(question("q", png(60, 60)), "caption")])
        writer.close()
    assert found.text is None
    assert "reasoning parser does not fit" in found.error


def test_a_local_captioner_s_thoughts_are_kept_apart(monkeypatch):
    texts = iter([(f"<think>{THOUGHT}</think>\n\na square",), (f"<think>{THOUGHT}",), ("a square",)])
    monkeypatch.setattr(PromptEncoder, "decode", lambda self, prompt, ids: next(texts))
    settings = CaptionerSettings("embedded:figure-captioner", "it", max_new_tokens=2, batch_size=1)
    writer = open_writer(settings, CPU)
    found = list(writer.write([(question("q", png(60, 60)), "caption")] * 3))
    writer.close()
    assert [(item.text, item.thoughts) for item in found] == [("a square", THOUGHT), ("", THOUGHT), ("a square", "")]


@pytest.mark.parametrize("special", [False, True])
def test_what_a_prompt_has_opened_is_in_the_text(special):
    """Chat templates of thinking models end with the tag: what is cut off in the thought would pass for a caption.

    Some tokenizers have the tags as special tokens, which decoding drops.
    """
    processor = load_encoder(PolicySettings(resolve_model("embedded:figure-captioner"))).processor
    tokenizer = processor.tokenizer
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=special)
    tokenizer.add_tokens(["red"])
    encoder = PromptEncoder(processor, 3136, 3136)
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(["red", "</think>", "red"])])
    prompt = encoder.encode(question("q", png(56, 56)))
    opened = dataclasses.replace(
        prompt, input_ids=torch.cat([prompt.input_ids, torch.tensor(tokenizer.convert_tokens_to_ids(["<think>"]))])
    )
    assert THINK_OPEN not in encoder.decode(prompt, ids)[0]
    assert encoder.decode(opened, ids)[0].startswith(THINK_OPEN)
    assert without_thoughts(encoder.decode(opened, ids)[0]) == "red"
    assert without_thoughts(encoder.decode(opened, ids[:, :1])[0]) == ""


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [((100, 50), (1, 10**6), (100, 50)), ((100, 50), (1, 1250), (50, 25)), ((10, 5), (200, 10**6), (20, 10))],
)
def test_images_are_scaled_into_the_limits(size, limits, expected):
    assert decoded({"image_url": {"url": data_url(png(*size), *limits)}}).size == expected


def test_a_server_has_its_own_precision():
    with pytest.raises(RacroError, match="leave them out"):
        open_writer(served("http://localhost:1", quantization="nf4"), CPU)
