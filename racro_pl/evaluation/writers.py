"""Who writes captions and tentative answers: a captioner in this process, or one on a server. Always greedy."""

from __future__ import annotations

import abc
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from PIL import Image

from racro_pl.evaluation.asking import ask_all
from racro_pl.evaluation.captioner_source import MAX_PIXELS, MIN_PIXELS, find_policy, is_url
from racro_pl.evaluation.settings import CaptionerSettings
from racro_pl.images import ImageError, image_url, open_image
from racro_pl.reward import HttpReasoner
from racro_pl.serving.replies import NO_ANSWER
from racro_pl.text.answers import THINK_CLOSE, THINK_OPEN
from racro_pl.text.captioner_prompt import PromptError, captioner_messages, tentative_messages, with_image_urls
from racro_pl.text.thoughts import has_thoughts, without_thoughts
from racro_pl.types import ImageRef, Messages, Question, RacroError

if TYPE_CHECKING:
    import torch

    from racro_pl.policy.captioner import Captioner
    from racro_pl.types import Prompt

Task = Literal["caption", "tentative"]
PROMPT_TEMPLATES = {"caption": captioner_messages, "tentative": tentative_messages}
CANNOT_ASK = "cannot be asked"
_SPECIAL_TOKEN = re.compile(r"<\|[A-Za-z_0-9]+\|>")


@dataclass(frozen=True)
class Written:
    """One text of a captioner, or why there is none."""

    question: Question
    task: Task
    text: str | None
    truncated: bool | None = None
    """Whether the length limit cut it; None when the engine does not tell."""
    error: str | None = None
    thoughts: str = ""
    """What a thinking captioner thought before it, or what is known of that. No reasoner is to read it."""

    @property
    def refused(self) -> bool:
        """Whether the question itself cannot be asked; what else has no text failed."""
        return (self.error or "").startswith(CANNOT_ASK)

    @property
    def only_thoughts(self) -> bool:
        """Whether it is empty because all of it were thoughts."""
        return not self.text and bool(self.thoughts)


def _written(question: Question, task: Task, text: str, truncated: bool | None) -> Written:
    """What a model wrote, with its thoughts apart."""
    visible = without_thoughts(text)
    thoughts = text.rpartition(THINK_CLOSE)[0] or text if has_thoughts(text) else ""
    return Written(question, task, visible.strip(), truncated, thoughts=thoughts.replace(THINK_OPEN, "").strip())


class Writer(abc.ABC):
    """Writes captions and tentative answers."""

    @abc.abstractmethod
    def probe(self) -> None:
        """Find out, without loading weights, what is wrong with the settings; another captioner may run first.

        Raises:
            RacroError: something is.
        """

    @abc.abstractmethod
    def check(self) -> None:
        """Load, or make sure that the server answers.

        Raises:
            RacroError: it cannot write.
        """

    @abc.abstractmethod
    def write(self, work: Sequence[tuple[Question, Task]]) -> Iterator[Written]:
        """Each text as soon as it is there. A question that cannot be asked is an error of its own."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of weights and connections."""


def open_writer(settings: CaptionerSettings, device: torch.device) -> Writer:
    """The writer that ``settings`` describe. Nothing is loaded yet."""
    return ServedWriter(settings) if is_url(settings.path) else InProcessWriter(settings, device)


class InProcessWriter(Writer):
    """A transformers model on ``device``."""

    def __init__(self, settings: CaptionerSettings, device: torch.device) -> None:
        self.settings = settings
        self.device = device
        self._captioner: Captioner | None = None

    def probe(self) -> None:
        from racro_pl.policy.loading import probe_for_inference

        probe_for_inference(find_policy(self.settings, self.device.type != "cpu"))

    def check(self) -> None:
        from racro_pl.policy.loading import load_for_inference

        if self._captioner is None:
            self._captioner = load_for_inference(find_policy(self.settings, self.device.type != "cpu"), self.device)

    def write(self, work: Sequence[tuple[Question, Task]]) -> Iterator[Written]:
        self.check()
        captioner = self._captioner
        assert captioner is not None
        for start in range(0, len(work), self.settings.batch_size):
            encoded: list[tuple[Question, Task, Prompt]] = []
            for question, task in work[start : start + self.settings.batch_size]:
                try:
                    encoded.append((question, task, captioner.encode(question, PROMPT_TEMPLATES[task])))
                except (ImageError, PromptError) as error:
                    yield Written(question, task, None, error=f"{CANNOT_ASK}: {error}")
            if not encoded:
                continue
            prompts = [prompt for _, _, prompt in encoded]
            written = captioner.generate(prompts, 1, self.settings.max_new_tokens, temperature=None)
            for (question, task, _), text, cut in zip(encoded, written.texts, written.truncated, strict=True):
                yield _written(question, task, text, cut)

    def close(self) -> None:
        self._captioner = None


class ServedWriter(Writer):
    """A model on an OpenAI-compatible server that takes images, such as vLLM."""

    def __init__(self, settings: CaptionerSettings) -> None:
        self.settings = settings
        if settings.quantization or settings.dtype or settings.thinking is not None:
            raise RacroError(
                f"captioner {settings.name!r} is a server, which has its own quantization, dtype and thinking switch: "
                "leave them out"
            )
        self._client = HttpReasoner(
            settings.path,
            settings.model,
            temperature=0.0,
            max_tokens=settings.max_new_tokens,
            concurrency=settings.batch_size,
        )

    def probe(self) -> None:
        self._client.check()

    def check(self) -> None:
        self._client.check()

    def write(self, work: Sequence[tuple[Question, Task]]) -> Iterator[Written]:
        refused: list[Written] = []

        def prompts() -> Iterable[tuple[tuple[Question, Task], Messages]]:
            for question, task in work:
                try:
                    yield (question, task), self._messages(question, task)
                except (ImageError, PromptError) as error:
                    refused.append(Written(question, task, None, error=f"{CANNOT_ASK}: {error}"))

        # Few at a time: every waiting prompt holds its encoded images.
        for (question, task), reply in ask_all(self._client, prompts(), window=2 * self.settings.batch_size):
            if reply.kind == NO_ANSWER and reply.truncated:
                # Its own doing, and greedy: asked again, it would write the same. So it has written nothing.
                yield Written(question, task, "", True, thoughts=reply.error or "")
            elif reply.text is None:
                yield Written(question, task, None, error=reply.error)
            else:
                yield _written(question, task, reply.text, reply.truncated)
        yield from refused

    def close(self) -> None:
        self._client.close()

    def _messages(self, question: Question, task: Task) -> Messages:
        low = self.settings.min_pixels or MIN_PIXELS
        high = self.settings.max_pixels or MAX_PIXELS
        urls = [data_url(ref, low, high) for ref in question.images]
        messages = PROMPT_TEMPLATES[task](question.text, len(question.images))
        sent = "\n".join(part.get("text", "") for message in messages for part in message["content"])
        if token := _SPECIAL_TOKEN.search(sent):
            raise PromptError(f"the question's text holds {token[0]!r}, which looks like a special token")
        return with_image_urls(messages, urls)


def data_url(ref: ImageRef, min_pixels: int, max_pixels: int) -> str:
    """An image as PNG in a ``data:`` URL, scaled so that width * height lies between the limits.

    Raises:
        ImageError: the image cannot be read.
    """
    image = open_image(ref)
    pixels = image.width * image.height
    bound = min(max(pixels, min_pixels), max_pixels)
    if bound != pixels:
        scale = (bound / pixels) ** 0.5
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    return image_url(image)
