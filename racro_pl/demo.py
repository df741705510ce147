"""The page of ``racro-pl demo``: a picture and a question in; captions and answers of several models out.

Gradio (the extra ``demo``) makes the page. It listens on this machine, sends nothing elsewhere and keeps no uploads.
"""

from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from racro_pl.figure_world.world import figure_questions
from racro_pl.images import ImageError, open_image
from racro_pl.pipeline import Pipeline, question_of, reasoner_chat, reply_of
from racro_pl.reward import Reasoner
from racro_pl.text.answers import extract_answer, visible_text
from racro_pl.types import Question, RacroError

MAX_QUESTION = 2000
UPLOAD_LIMIT = "10mb"
HEIGHT_PX = 280
EXAMPLES = 6
"""Questions of the figure world that the page offers."""


@dataclass(frozen=True)
class Answers:
    """What one captioner, and every reasoner from its caption, has said so far; None: not yet."""

    caption: str | None = None
    tentative: str | None = None
    answers: tuple[str | None, ...] = ()


def answer_all(
    question: Question, captioners: Mapping[str, Pipeline], reasoners: Mapping[str, Reasoner]
) -> Iterator[dict[str, Answers]]:
    """Every captioner's texts and every reasoner's answers; yields after each text, with all that is there.

    Where one of them fails, its place says why: that must not hide what the others say.
    """
    found = {name: Answers(answers=(None,) * len(reasoners)) for name in captioners}
    yield found
    for name, pipeline in captioners.items():
        try:
            for answers in _answers(question, pipeline, list(reasoners.values())):
                found = found | {name: answers}
                yield found
        except (RacroError, ImageError) as error:
            yield (found := found | {name: _failed(found[name], str(error))})


def _answers(question: Question, pipeline: Pipeline, reasoners: Sequence[Reasoner]) -> Iterator[Answers]:
    said: list[str | None] = [None] * len(reasoners)
    caption = pipeline.write(question, "caption")
    yield (answers := Answers(caption, None, tuple(said)))
    tentative = pipeline.write(question, "tentative")
    yield (answers := replace(answers, tentative=tentative))
    chat = reasoner_chat(question.text, caption, tentative)
    for place, reasoner in enumerate(reasoners):
        try:
            reply = reply_of(reasoner, chat)
            said[place] = extract_answer(reply) or visible_text(reply).strip() or "(no answer)"
        except RacroError as error:
            said[place] = f"({error})"
        yield replace(answers, answers=tuple(said))


def _failed(answers: Answers, why: str) -> Answers:
    """What a captioner has said until it failed, and why; the reasoners have nothing to read."""
    caption = f"({why})" if answers.caption is None else answers.caption
    tentative = "" if answers.caption is None else f"({why})"
    return Answers(caption, tentative, ("",) * len(answers.answers))


def table(found: Mapping[str, Answers], reasoners: Sequence[str]) -> str:
    """The answers as HTML: a column per captioner. All texts are escaped."""
    names = list(found)
    rows = [
        ("caption", [found[name].caption for name in names]),
        ("the captioner's own answer", [found[name].tentative for name in names]),
        *((f"answer of {reasoner}", [found[name].answers[place] for name in names])
          for place, reasoner in enumerate(reasoners)),
    ]  # fmt: skip
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr><th>{html.escape(title)}</th>{''.join(_cell(text) for text in texts)}</tr>" for title, texts in rows
    )
    return f"<div class='answers'><table><tr><th></th>{head}</tr>{body}</table></div>"


def _cell(text: str | None) -> str:
    if text is None:
        return "<td class='waiting'>…</td>"
    return f"<td>{html.escape(text) or '<i>(empty)</i>'}</td>"


def _uploaded(payload: Any) -> str | None:
    return None if payload is None else payload.path


STYLE = """
.answers { overflow-x: auto; } .answers table { width: 100%; border-collapse: collapse; }
.answers th, .answers td { text-align: left; vertical-align: top; padding: .4rem .6rem; }
.answers td { min-width: 5rem; overflow-wrap: anywhere; }
.answers .waiting { opacity: .5; }
"""


class Demo:
    """The page and what it asks. Close it to end the captioners and reasoners and to remove uploads.

    Args:
        captioners: by the name that the page shows; one before and one after training, say.
        reasoners: likewise.
    """

    def __init__(self, captioners: Mapping[str, Pipeline], reasoners: Mapping[str, Reasoner]) -> None:
        self.captioners = dict(captioners)
        self.reasoners = dict(reasoners)
        self._folder = tempfile.TemporaryDirectory(prefix="racro-demo-")
        # Read when gradio is imported: uploads lie there, and no telemetry is sent.
        os.environ["GRADIO_TEMP_DIR"] = self._folder.name
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        try:
            import gradio
        except ImportError as error:
            raise RacroError("the page needs gradio: pip install 'racro-pl[demo]'") from error
        self._gradio: Any = gradio

    def build(self) -> Any:
        """The page, a ``gradio.Blocks``."""
        gradio = self._gradio
        with gradio.Blocks(title="racro_pl", analytics_enabled=False) as page:
            gradio.Markdown(
                "## Ask about a picture\nThe captioner looks and writes; the reasoners read what it wrote, and nothing "
                "else."
            )
            with gradio.Row():
                with gradio.Column():
                    picture = gradio.Image(
                        label="Picture", type="filepath", image_mode=None, height=HEIGHT_PX,
                        sources=["upload", "clipboard"], buttons=["fullscreen"],
                    )  # fmt: skip
                    text = gradio.Textbox(label="Question", max_length=MAX_QUESTION, lines=2)
                    button = gradio.Button("Ask", variant="primary")
                with gradio.Column():
                    seen = gradio.Image(
                        label="What the model saw", interactive=False, format="png", height=HEIGHT_PX,
                        buttons=["fullscreen"],
                    )  # fmt: skip
            answers = gradio.HTML(label="Answers")
            gradio.Examples(self._examples(), [picture, text])
            # Gradio would open the file itself: of one that is no picture it says nothing but "Error".
            picture.preprocess = _uploaded
            for event in (button.click, text.submit):
                # One id: Gradio counts what runs at once by function, and takes a method for another one each time.
                event(
                    self.ask, [picture, text], [seen, answers], api_visibility="private", concurrency_limit=1,
                    concurrency_id="ask",
                )  # fmt: skip
        page.queue(max_size=16)
        return page

    def ask(self, picture: str | None, text: str) -> Iterator[tuple[Image.Image | None, str]]:
        """What the button does: the picture as the model sees it, and the table as it fills."""
        try:
            if picture is None:
                raise RacroError("choose a picture first")
            question = question_of(picture, text[:MAX_QUESTION])
            image = open_image(question.images[0])
            for found in answer_all(question, self.captioners, self.reasoners):
                yield image, table(found, list(self.reasoners))
        except (RacroError, ImageError) as error:
            yield None, f"<p role='alert'>{html.escape(str(error))}</p>"

    def launch(self, host: str, port: int, block: bool = True) -> Any:
        """Serve the page."""
        gradio = self._gradio
        return self.build().launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=not block,
            quiet=True,
            allowed_paths=[],
            max_file_size=UPLOAD_LIMIT,
            enable_monitoring=False,
            show_error=False,
            footer_links=[],
            css=STYLE,
            # Names of this machine's own fonts: the default ones would be fetched from elsewhere.
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        )

    def _examples(self) -> list[list[str]]:
        folder = Path(self._folder.name)
        rows = []
        for number, question in enumerate(figure_questions("test", EXAMPLES)):
            path = folder / f"example-{number}.png"
            open_image(question.images[0]).save(path)
            rows.append([str(path), question.text])
        return rows

    def close(self) -> None:
        """End everything and remove the uploads."""
        for captioner in self.captioners.values():
            captioner.close()
        for reasoner in self.reasoners.values():
            reasoner.close()
        self._folder.cleanup()
