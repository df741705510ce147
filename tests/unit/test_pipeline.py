"""A captioner and a reasoner, asked from Python."""

import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest

from racro_pl.evaluation.writers import Written
from racro_pl.pipeline import Part, Pipeline, joined, question_of
from racro_pl.reward.reasoner import Reasoner, ReasonerError, Reply
from racro_pl.types import ImageRef, RacroError

FIGURES = Path(__file__).parents[2] / "docs" / "images" / "figures.png"


class Spy(Reasoner):
    """Notes what it is asked; answers with a box, or not at all."""

    identity = "spy"
    deterministic = True
    busy_seconds = 0.0

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.prompts: list = []

    def check(self) -> None: ...

    def submit(self, prompts):
        self.prompts += prompts
        futures = [Future() for _ in prompts]
        for future in futures:
            future.set_result(self.reply)
        return futures

    def submit_seeded(self, prompts, seeds):
        return self.submit(prompts)

    def close(self) -> None: ...


def test_the_reasoner_reads_the_caption_and_never_the_image() -> None:
    spy = Spy(Reply(text="<think>hm</think>It is \\boxed{red}."))
    with Pipeline(reasoner=spy, mode="caption", max_tokens=12) as pipeline:
        answer = pipeline.ask(FIGURES, "what is the color of square ?")
        assert answer.caption == pipeline.caption(FIGURES, "what is the color of square ?")
    assert (answer.answer, answer.visible, answer.tentative) == ("red", "It is \\boxed{red}.", None)
    (messages,) = spy.prompts
    assert all(isinstance(message["content"], str) for message in messages)
    assert answer.caption in messages[-1]["content"]
    assert set(answer.seconds) == {"caption", "response"}


def test_bytes_paths_and_references_are_the_same_image() -> None:
    with Pipeline(reasoner=Spy(Reply(text="no box")), mode="caption", max_tokens=12) as pipeline:
        captions = {
            pipeline.caption(image, "what is the color of square ?")
            for image in (FIGURES, str(FIGURES), FIGURES.read_bytes(), ImageRef(path=FIGURES), [FIGURES])
        }
    assert len(captions) == 1


def test_a_caption_of_nothing_but_thoughts_is_an_error_and_no_reasoner_is_asked(monkeypatch) -> None:
    spy = Spy(Reply(text="no box"))
    with Pipeline(reasoner=spy) as pipeline:
        thinking = lambda work: [Written(work[0][0], "caption", "", thoughts="a square, or")]  # noqa: E731
        monkeypatch.setattr(pipeline._writer, "write", thinking)
        with pytest.raises(RacroError, match="only an unfinished thought: raise max_tokens"):
            pipeline.ask(FIGURES, "what is the color of square ?")
    assert spy.prompts == []


def test_a_tentative_answer_without_a_box_is_not_shown_to_the_reasoner() -> None:
    def mode(tentative: str) -> str:
        parts = [Part("caption", "c", 0.1), Part("tentative", tentative, 0.1), Part("response", "r", 0.1)]
        return joined(parts).mode

    assert mode("\\boxed{red}") == "caption+tentative"
    assert mode("square is red .") == "caption"


@pytest.mark.parametrize(
    ("images", "text", "message"),
    [
        ([], "q", "no image"),
        (FIGURES, "  ", "question is empty"),
        (FIGURES, "\ufeff\0", "question is empty"),
        (b"no picture", "q", "image"),
        ("nowhere.png", "q", "nowhere"),
    ],
)
def test_unusable_input_is_refused_before_a_model_is_loaded(images, text, message) -> None:
    with pytest.raises(RacroError, match=message):
        question_of(images, text)


def test_half_a_character_in_a_question_is_replaced_not_an_error() -> None:
    assert question_of(FIGURES, "an emoji \ud83d cut").text == "an emoji \ufffd cut"


def test_a_reasoner_without_an_answer_is_an_error() -> None:
    pipeline = Pipeline(reasoner=Spy(Reply(error="timeout: no complete answer")), mode="caption", max_tokens=12)
    with pipeline, pytest.raises(ReasonerError, match="no complete answer"):
        pipeline.ask(FIGURES, "what is the color of square ?")


def test_texts_without_room_are_refused_when_the_pipeline_is_built() -> None:
    with pytest.raises(RacroError, match="got max_tokens=0, expected at least 1"):
        Pipeline(reasoner=Spy(Reply(text="no box")), max_tokens=0)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, racro_pl, racro_pl.models; "
        "assert 'Pipeline' in racro_pl.__all__; "
        "assert not {'torch', 'lightning', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_of_the_package_loads() -> None:
    import racro_pl
    import racro_pl.models

    for module in (racro_pl, racro_pl.models):
        assert all(isinstance(getattr(module, name), object) for name in module.__all__)
        with pytest.raises(AttributeError, match="no attribute"):
            _ = module.nothing
