"""From a question to the tokens and pixels that the captioner reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from PIL import Image

from racro_pl.images import ImageError, image_size, open_image
from racro_pl.policy.families.image_limits import ImageLimit, limit_area
from racro_pl.policy.vocabulary import thought_tags
from racro_pl.pretrained.chat_template import chat_template_of, check_template, switch_thinking
from racro_pl.text.captioner_prompt import PromptError, captioner_messages, tentative_messages
from racro_pl.text.thoughts import PROMPT_END_TOKENS, mark_opening
from racro_pl.types import Messages, Prompt, Question, RacroError, Role

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

PromptTemplate = Callable[[str, int], Messages]
"""A prompt of ``text/captioner_prompt.py``: question text and number of images in, chat out."""
TEMPLATES: dict[Role, PromptTemplate] = {"caption": captioner_messages, "answer": tentative_messages}
"""How each is asked for."""


ORDINARY = (256, 256)
"""Width and height of an image that every family's processor takes."""


class PromptEncoder:
    """Builds captioner prompts with a model's own processor.

    Images are resized once, by the processor, between the two pixel limits (the reference resizes twice).

    Args:
        processor: a transformers processor with ``image_processor`` and ``tokenizer``.
        min_pixels, max_pixels: limits on width * height of an image as the model sees it.
        prompt_template: what a question is turned into where a call names no other: the request for a caption.
        what: names the model in errors.
        image_limit: how its family's image processor is told the limits.
        thinking: switches thinking in its chat template on or off; None leaves it to the template.

    Raises:
        RacroError: the processor has no chat template, or one that does not know ``thinking``.
    """

    def __init__(
        self,
        processor: Any,
        min_pixels: int,
        max_pixels: int,
        prompt_template: PromptTemplate = captioner_messages,
        what: str = "the captioner",
        image_limit: ImageLimit = limit_area,
        thinking: bool | None = None,
    ) -> None:
        self.prompt_template = prompt_template
        self._template = chat_template_of(processor, processor.tokenizer, what)
        if thinking is not None:
            self._template = switch_thinking(self._template, thinking)
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self._special_tokens = [t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special]
        self._thought_tags = thought_tags(self.tokenizer)
        image_limit(processor.image_processor, min_pixels, max_pixels)
        self._image_tokens: dict[tuple[tuple[int, int], ...], int] = {}
        # The template runs in another process, and a question comes back: counted, validated on, in the next epoch.
        self._chat_text = lru_cache(maxsize=4096)(self._build_chat)

    def check(self) -> None:
        """Render a prompt: the template must end, take our roles, and leave nothing of the texts out.

        Raises:
            RacroError: it does not.
        """
        messages = self.prompt_template("How many cats are there?", 1)
        texts = [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]
        dropped = check_template(self._template, messages, texts)
        if dropped:
            raise RacroError(
                f"{self._template.what}: its chat template leaves out {dropped[0][:60]!r}; expected one that passes on "
                "the system's and the user's text, as Qwen2.5-VL's and Qwen3-VL's do"
            )

    def encode(self, question: Question, prompt_template: PromptTemplate | None = None) -> Prompt:
        """Open the images and tokenise. The one place where images are decoded.

        Args:
            prompt_template: what to ask for; None for the encoder's own.

        Raises:
            ImageError: an image cannot be read.
            PromptError: the image tags do not fit the images, or the text holds a special token.
        """
        images = [open_image(ref) for ref in question.images]
        template = prompt_template or self.prompt_template
        inputs = self._process(self._chat_text(question.text, len(question.images), template), images)
        ids = inputs.pop("input_ids")[0]
        # Gemma 3 has types of its own in place of the common ones; Idefics 3 tells none of a prompt without images.
        types = [inputs.pop(name)[0] for name in ("mm_token_type_ids", "token_type_ids") if name in inputs]
        inputs.pop("attention_mask")
        role: Role = "answer" if template is tentative_messages else "caption"
        return Prompt(ids, types[0] if types else ids.new_zeros(len(ids)), inputs if images else {}, role)

    def count_tokens(self, question: Question) -> int:
        """Length of the prompt, image tokens counted, from the image headers alone.

        Raises:
            ImageError, PromptError: as for :meth:`encode`, but broken pixels after a good header go unseen.
        """
        text = self._chat_text(question.text, len(question.images), self.prompt_template)
        count = len(self.tokenizer(text, **self._text_options(text))["input_ids"])
        sizes = tuple(image_size(ref) for ref in question.images)
        return count + self._added_by_images(sizes)

    def image_tokens(self, width: int, height: int) -> int:
        """How many tokens a picture of this size takes, with those that the family puts around it.

        Raises:
            ImageError: the family's processor does not take the size.
        """
        return self._added_by_images(((width, height),)) - self._added_by_images(()) + 1

    def _added_by_images(self, sizes: tuple[tuple[int, int], ...]) -> int:
        """Tokens that the processor adds to the placeholders of images of these widths and heights.

        Where images are patches that merge, by the processor's own formula. Elsewhere a prompt of blank images tells,
        once for the same sizes, and one without images what the processor adds by itself. (In Gemma 3 the newlines
        around an image may merge with those of the text, by a token or two.)
        """
        processor = self.processor.image_processor
        if hasattr(processor, "merge_size"):
            patches = [processor.get_number_of_image_patches(height, width) for width, height in sizes]
            return sum(count // processor.merge_size**2 - 1 for count in patches)
        if sizes not in self._image_tokens:
            text = self._template.render(self.prompt_template("x", len(sizes)))
            bare = len(self.tokenizer(text, **self._text_options(text))["input_ids"])
            blank = [Image.new("RGB", size) for size in sizes]
            self._image_tokens[sizes] = len(self._process(text, blank)["input_ids"][0]) - bare
        return self._image_tokens[sizes]

    def _process(self, text: str, images: list[Image.Image]) -> dict[str, Any]:
        """The processor's tensors.

        Raises:
            ImageError: it does not take these images, though it takes ordinary ones.
        """
        try:
            return self._call_processor(text, images)
        except Exception as error:  # each family refuses sizes in its own way
            if not images:
                raise
            # What fails for every image is no fault of this one, and must not pass for one question left out.
            self._call_processor(text, [Image.new("RGB", ORDINARY) for _ in images])
            sizes = ", ".join(f"{image.width}x{image.height}" for image in images)
            raise ImageError(
                f"the captioner's processor does not take the image ({sizes}): {str(error)[:200]}"
            ) from error

    def _call_processor(self, text: str, images: list[Image.Image]) -> dict[str, Any]:
        inputs = self.processor(
            text=[text],
            # Some processors take the images of all prompts as one list, others want a list per prompt.
            images=[images] if images else None,
            return_mm_token_type_ids=True,
            return_tensors="pt",
            **self._text_options(text),
        )
        return dict(inputs)

    def _text_options(self, text: str) -> dict[str, bool]:
        """A template that begins with the beginning-of-text token has written it: the tokenizer must not add one."""
        begin = self.tokenizer.bos_token
        return {"add_special_tokens": False} if begin and text.startswith(begin) else {}

    def decode(self, prompt: Prompt, token_ids: Int[Tensor, "g t"]) -> list[str]:
        """Texts that were written after a prompt, without special tokens but tags of thoughts.

        Where the chat template has opened a thought in the prompt, each begins with its tag: see ``text/thoughts.py``.
        """
        end = self.tokenizer.decode(prompt.input_ids[-PROMPT_END_TOKENS:])
        return [mark_opening(self._text_of(row), end) for row in token_ids.tolist()]

    def _text_of(self, row: list[int]) -> str:
        """A row's text; tags of thoughts stay in it where they are special tokens too."""
        parts, start = [], 0
        for place in [place for place, token in enumerate(row) if token in self._thought_tags]:
            parts += [row[start:place], self._thought_tags[row[place]]]
            start = place + 1
        return "".join(
            part if isinstance(part, str) else self.tokenizer.decode(part, skip_special_tokens=True)
            for part in [*parts, row[start:]]
        )

    def encode_text(self, messages: Messages) -> Prompt:
        """Tokenise a chat without images.

        Raises:
            PromptError: its text holds a special token.
        """
        self._refuse_special_tokens("".join(message["content"] for message in messages), "the chat's text")
        text = self._template.render(messages)
        if any(message["content"].strip() not in text for message in messages):
            # The template walks parts, and finds none in a text.
            parts = [message | {"content": [{"type": "text", "text": message["content"]}]} for message in messages]
            text = self._template.render(parts)
        ids = self._process(text, [])["input_ids"][0]
        return Prompt(ids, ids.new_zeros(len(ids)))

    def _build_chat(self, question_text: str, images: int, prompt_template: PromptTemplate) -> str:
        messages = prompt_template(question_text, images)
        # An image placeholder in the text would be counted as an image; a turn marker would end the user's turn.
        # Looked for in what is sent: taking a sentence out of the question may join the two ends of a token.
        sent = [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]
        for text in sent:
            self._refuse_special_tokens(text, "the question's text")
        return self._template.render(messages)

    def _refuse_special_tokens(self, text: str, what: str) -> None:
        written = [token for token in self._special_tokens if token in text]
        if written:
            raise PromptError(f"{what} holds {written[0]!r}, a special token of the captioner")
