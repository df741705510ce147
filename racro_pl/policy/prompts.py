"""From a question to the tokens and pixels that the captioner reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from racro_pl.images import image_size, open_image
from racro_pl.pretrained.chat_template import chat_template_of, check_template
from racro_pl.text.captioner_prompt import PromptError, captioner_messages
from racro_pl.text.thoughts import PROMPT_END_TOKENS, mark_opening
from racro_pl.types import Messages, Prompt, Question, RacroError

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

PromptTemplate = Callable[[str, int], Messages]
"""A prompt of ``text/captioner_prompt.py``: question text and number of images in, chat out."""


class PromptEncoder:
    """Builds captioner prompts with a model's own processor.

    Images are resized once, by the processor, between the two pixel limits (the reference resizes twice).

    Args:
        processor: a transformers processor with ``image_processor`` and ``tokenizer``.
        min_pixels, max_pixels: limits on width * height of an image as the model sees it.
        prompt_template: what a question is turned into where a call names no other: the request for a caption.
        what: names the model in errors.

    Raises:
        RacroError: the processor has no chat template.
    """

    def __init__(
        self,
        processor: Any,
        min_pixels: int,
        max_pixels: int,
        prompt_template: PromptTemplate = captioner_messages,
        what: str = "the captioner",
    ) -> None:
        self.prompt_template = prompt_template
        self._template = chat_template_of(processor, processor.tokenizer, what)
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self._special_tokens = [t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special]
        processor.image_processor.size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}

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
            question: what to ask about.
            prompt_template: what to ask for; None for the encoder's own.

        Raises:
            ImageError: an image cannot be read.
            PromptError: the image tags do not fit the images, or the text holds a special token.
        """
        images = [open_image(ref) for ref in question.images]
        inputs = self.processor(
            text=[self._chat_text(question, prompt_template or self.prompt_template)],
            images=images or None,
            return_mm_token_type_ids=True,
            return_tensors="pt",
        )
        return Prompt(
            input_ids=inputs["input_ids"][0],
            mm_token_type_ids=inputs["mm_token_type_ids"][0],
            pixel_values=inputs["pixel_values"] if images else None,
            image_grid_thw=inputs["image_grid_thw"] if images else None,
        )

    def count_tokens(self, question: Question) -> int:
        """Length of the prompt, image tokens counted, from the image headers alone.

        Raises:
            ImageError, PromptError: as for :meth:`encode`, but broken pixels after a good header go unseen.
        """
        processor = self.processor.image_processor
        count = len(
            self.tokenizer(self._chat_text(question, self.prompt_template), add_special_tokens=False)["input_ids"]
        )
        for ref in question.images:
            width, height = image_size(ref)
            patches = processor.get_number_of_image_patches(height, width)
            # One placeholder per image is in the text already.
            count += patches // processor.merge_size**2 - 1
        return count

    def decode(self, prompt: Prompt, token_ids: Int[Tensor, "g t"]) -> list[str]:
        """Texts that were written after a prompt, without special tokens.

        Where the chat template has opened a thought in the prompt, each begins with its tag: see ``text/thoughts.py``.
        """
        end = self.tokenizer.decode(prompt.input_ids[-PROMPT_END_TOKENS:])
        return [mark_opening(text, end) for text in self.tokenizer.batch_decode(token_ids, skip_special_tokens=True)]

    def encode_text(self, messages: Messages) -> Prompt:
        """Tokenise a chat without images.

        Raises:
            PromptError: its text holds a special token.
        """
        self._refuse_special_tokens("".join(message["content"] for message in messages), "the chat's text")
        text = self._template.render(messages)
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
        return Prompt(ids, ids.new_zeros(len(ids)), None, None)

    def _chat_text(self, question: Question, prompt_template: PromptTemplate) -> str:
        messages = prompt_template(question.text, len(question.images))
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
