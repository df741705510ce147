"""The trained method at work: a captioner and any reasoner, asked from Python.

from racro_pl import Pipeline

with Pipeline("runs/quickstart", "http://127.0.0.1:8000/v1") as pipeline:
    print(pipeline.ask("figures.png", "what is the color of square ?").answer)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeGuard

from racro_pl.evaluation.settings import CaptionerSettings, SamplingSettings, open_reasoner, short_name
from racro_pl.evaluation.writers import Task, Writer, open_writer
from racro_pl.images import image_size
from racro_pl.reward import Reasoner, ReasonerError
from racro_pl.text.answers import extract_answer, visible_text
from racro_pl.text.cleaning import clean_text
from racro_pl.text.reasoner_prompt import joint_messages, reasoner_messages
from racro_pl.types import ImageRef, Messages, Question, RacroError, require

if TYPE_CHECKING:
    import torch

    from racro_pl.policy.captioner import Captioner

EMBEDDED_CAPTIONER = "embedded:figure-captioner"
EMBEDDED_REASONER = "embedded:figure-reasoner"
Mode = Literal["caption", "caption+tentative"]
Image = str | Path | bytes | ImageRef


@dataclass(frozen=True)
class Part:
    """One text of an answer, as soon as it is there."""

    name: Literal["caption", "tentative", "response"]
    text: str
    seconds: float


@dataclass(frozen=True)
class Answer:
    """What became of one question."""

    caption: str
    tentative: str | None
    """The captioner's own answer; None where the mode does not ask for one."""
    response: str
    """The reasoner's whole reply."""
    mode: Mode
    """What the reasoner read: ``caption`` as well where the tentative answer holds no box."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each text, by its name."""

    @property
    def answer(self) -> str | None:
        """The answer in the reply's last box; None without one."""
        return extract_answer(self.response)

    @property
    def visible(self) -> str:
        """The reply without its thoughts; all of it where nothing else is left."""
        return visible_text(self.response).strip() or self.response.strip()


class Pipeline:
    """Question and image in; caption, the captioner's own answer and the reasoner's answer out. Captions are greedy.

    Args:
        captioner: a run's folder, an adapter, a model folder or hub id, an ``embedded:`` name, or a server's URL.
        reasoner: a URL, a path or an ``embedded:`` name, or a :class:`racro_pl.reward.Reasoner`.
        mode: what the reasoner reads; the paper's is ``caption+tentative``.
        model: the captioner's served name, with a URL that serves several.
        temperature: of a reasoner given as URL or path; 0 is greedy, as an ``embedded:`` one always is.
        max_tokens: of each text.
        device: ``auto``, or a torch device for a captioner in this process.

    Raises:
        RacroError: one of the two cannot be used. Weights are loaded by the first question, or by :meth:`check`.
    """

    def __init__(
        self,
        captioner: str = EMBEDDED_CAPTIONER,
        reasoner: str | Reasoner = EMBEDDED_REASONER,
        mode: Mode = "caption+tentative",
        *,
        model: str | None = None,
        temperature: float = 0.6,
        max_tokens: int = 2048,
        device: str = "auto",
    ) -> None:
        if mode not in ("caption", "caption+tentative"):
            raise RacroError(f"mode is {mode!r}; expected caption or caption+tentative")
        require(max_tokens >= 1, f"max_tokens={max_tokens}", "at least 1")
        self.mode = mode
        self.reasoner_name = short_name(reasoner) if isinstance(reasoner, str) else type(reasoner).__name__
        if isinstance(reasoner, str):
            reasoner = open_reasoner(reasoner, SamplingSettings(temperature, max_tokens=max_tokens))
        self._reasoner = reasoner
        settings = CaptionerSettings(captioner, "captioner", max_new_tokens=max_tokens, model=model)
        self._writer: Writer = open_writer(settings, torch_device(device))

    def check(self) -> None:
        """Load the captioner and make sure that the reasoner answers.

        Raises:
            RacroError: one of them cannot be used.
        """
        self._reasoner.check()
        self._writer.check()

    def caption(self, images: Image | Sequence[Image], question: str) -> str:
        """The caption of a picture for a question; no reasoner is asked."""
        return self.write(question_of(images, question), "caption")

    def ask(self, images: Image | Sequence[Image], question: str) -> Answer:
        """Answer a question about one or more images.

        Args:
            images: paths, encoded image files, or references.

        Raises:
            RacroError: an image or the question is unusable, or one of the two wrote nothing.
        """
        return joined(list(self.parts(question_of(images, question))))

    def parts(self, question: Question) -> Iterator[Part]:
        """The texts of one answer in their order, each as soon as it is there."""
        tasks: tuple[Task, ...] = ("caption",) if self.mode == "caption" else ("caption", "tentative")
        texts: dict[str, str] = {}
        for task in tasks:
            started = time.perf_counter()
            texts[task] = self.write(question, task)
            yield Part(task, texts[task], time.perf_counter() - started)
        started = time.perf_counter()
        response = reply_of(self._reasoner, reasoner_chat(question.text, texts["caption"], texts.get("tentative")))
        yield Part("response", response, time.perf_counter() - started)

    def close(self) -> None:
        """Let go of weights and connections. Using the pipeline again opens them again."""
        self._writer.close()
        self._reasoner.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, question: Question, task: Task) -> str:
        """One text of the captioner: a caption, or its own answer.

        Raises:
            RacroError: it wrote none.
        """
        written = next(iter(self._writer.write([(question, task)])))
        if written.text is None:
            raise RacroError(f"the captioner wrote no {task}: {written.error}")
        if task == "caption" and written.only_thoughts:
            raise RacroError("the caption holds only an unfinished thought: raise max_tokens")
        return written.text


def joined(parts: Sequence[Part]) -> Answer:
    """The answer whose texts :meth:`Pipeline.parts` gave."""
    texts = {part.name: part.text for part in parts}
    return Answer(
        caption=texts["caption"],
        tentative=texts.get("tentative"),
        response=texts["response"],
        mode="caption+tentative" if reads_tentative(texts.get("tentative")) else "caption",
        seconds={part.name: part.seconds for part in parts},
    )


def load_captioner(path: str, device: str = "auto") -> Captioner:
    """A captioner that only writes, with its adapter on: ``captioner.generate`` and ``captioner.encode`` are its uses.

    Args:
        path: a run's folder, an adapter, a model folder or hub id, or an ``embedded:`` name.
        device: ``auto``, or a torch device.

    Raises:
        RacroError: there is none, or its files are not whole.
    """
    from racro_pl.evaluation.captioner_source import find_policy
    from racro_pl.policy.loading import load_for_inference

    place = torch_device(device)
    return load_for_inference(find_policy(CaptionerSettings(path, "captioner"), place.type != "cpu"), place)


def torch_device(name: str) -> torch.device:
    """``auto`` is the first GPU, or the CPU where there is none."""
    import torch

    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def reply_of(reasoner: Reasoner, chat: Messages) -> str:
    """The reasoner's whole reply.

    Raises:
        ReasonerError: there is none.
    """
    reply = reasoner.submit([chat])[0].result()
    if reply.text is None:
        raise ReasonerError(f"the reasoner gave no answer: {reply.error}")
    return reply.text


def reasoner_chat(question: str, caption: str, tentative: str | None) -> Messages:
    """What the reasoner reads of a question: its caption, and the tentative answer where that is shown."""
    if reads_tentative(tentative):
        return joint_messages(question, caption, tentative)
    return reasoner_messages(question, caption)


def reads_tentative(tentative: str | None) -> TypeGuard[str]:
    """Whether the reasoner is shown a tentative answer: only one that holds a box.

    An adapter trained on captions alone may forget how to answer; what it then writes would only mislead.
    """
    return tentative is not None and extract_answer(tentative) is not None


def question_of(images: Image | Sequence[Image], text: str) -> Question:
    """A question about images, checked before a model is loaded.

    Raises:
        RacroError: an image cannot be opened, there is none, or the text is empty.
    """
    given = [images] if isinstance(images, (str, Path, bytes, ImageRef)) else list(images)
    if not given:
        raise RacroError("no image; expected at least one")
    # Bytes of a command line that are no UTF-8, and emojis cut in two, come as halves of characters.
    text = clean_text(text)
    if not text.strip():
        raise RacroError("the question is empty; expected its text")
    references = tuple(_reference(image) for image in given)
    for reference in references:
        image_size(reference)
    return Question("ask", references, text, answer="", answer_type="math")


def _reference(image: Image) -> ImageRef:
    if isinstance(image, ImageRef):
        return image
    return ImageRef(data=image) if isinstance(image, bytes) else ImageRef(path=Path(image))
