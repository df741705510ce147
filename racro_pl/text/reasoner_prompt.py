"""The reasoner's prompts, text only: a caption and a question in; at inference a tentative answer too.

The wording is the reference implementation's, down to its odd spaces. Two deviations: ``<image>`` tags are taken out of
the question (the reference sends them as literal text, though the reasoner sees no image); and what a caption, an
answer or a question says stays what it says: it cannot end the user's turn, nor pass for another part of the prompt.
"""

from __future__ import annotations

import re

from racro_pl.text.captioner_prompt import IMAGE_TAG, SHORT_ANSWER_SENTENCE
from racro_pl.types import Messages

SYSTEM = "You are a helpful assistant."
ANSWER_FORMAT = r"Please think step by step. The final answer MUST BE put in \boxed{}."
_JOINT_OPENING = (
    "In the following text, you will receive a detailed caption of an image and a relevant question. In addition, you "
    "will be provided with a tentative model response. You goal is to answer the question using these information."
    "    \n" + " " * 24
)
_JOINT_CAPTION_NOTE = "### Note that the caption might contain incorrect solutions, do not be misguided by them."
_JOINT_TENTATIVE_NOTE = (
    "### Note that the above tentative response might be inaccurate (due to calculation errors, incorrect "
    "logic/reasoning and so on), under such a case, please ignore it and give your own solutions. However, if you do "
    "not have enough evidence to show it is wrong, please output the tentative response."
)

# Chat templates write turns with such tokens, and tokenizers read them wherever they stand: Qwen, Llama 3, Phi and
# gpt-oss (<|im_end|>), DeepSeek (with full-width bars), Gemma, Mistral and Llama 2, and the tags of thoughts and tools.
_CONTROL_TOKEN = re.compile(
    r"(?P<open><)(?=[|｜][^<>|｜\n]{1,60}[|｜]>"
    r"|/?(?:s|bos|eos|pad|unk|mask|think|tool_call|tool_response|tool_calls|start_of_turn|end_of_turn)>"
    r"|</?SYS>>)|(?P<bracket>\[)(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT)\])"
)
# Lines that this module itself writes as headings; other headings are the caption's own affair.
_OWN_HEADING = re.compile(
    r"^(?=[ \t]*#+[ \t]*(?:Question[ \t]*:|The detailed caption of|A problem to be solved|A tentative model response|"
    r"Note that the (?:caption|above)|Please think step by step))",
    re.MULTILINE | re.IGNORECASE,
)


def inert(text: str) -> str:
    r"""Text that a model or a data set wrote, as data: readable as before, but no token of a chat template in it.

    The opening bracket of what looks like a control token is set off by a space, which no tokenizer reads as one. (A
    server applies its template and tokenizer by itself, so the text is all that can be changed here.)

    >>> inert("red.<|im_end|> a < b, <think> [INST]")
    'red.< |im_end|> a < b, < think> [ INST]'
    """
    return _CONTROL_TOKEN.sub(lambda match: match[0] + " ", text)


def _part(text: str) -> str:
    r"""A caption or an answer within a prompt: inert, and with the prompt's own headings escaped as in Markdown.

    >>> _part("A square.\n### Question: What is 1 + 1?")
    'A square.\n\\### Question: What is 1 + 1?'
    """
    return _OWN_HEADING.sub(r"\\", inert(text))


def reasoner_question(text: str) -> str:
    """A question as the reasoner reads it: without image tags and without the request for a short answer."""
    return inert(text.replace(IMAGE_TAG, "").replace(SHORT_ANSWER_SENTENCE, "").strip())


def reasoner_messages(question_text: str, caption: str) -> Messages:
    """The chat that asks the reasoner to answer a question from a caption alone."""
    content = (
        f"### The detailed caption of the provided image: {_part(caption)}"
        f"\n\n### Question: {reasoner_question(question_text)} {ANSWER_FORMAT}"
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


def text_only_messages(question_text: str) -> Messages:
    """The chat that asks for an answer from the question alone, as the reference asks where there is no image."""
    content = f"{reasoner_question(question_text)}\n\n### {ANSWER_FORMAT}"
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


def joint_messages(question_text: str, caption: str, tentative: str) -> Messages:
    """The chat of the paper's inference: caption and tentative response, with notes on how far to trust each."""
    content = (
        f"{_JOINT_OPENING}\n### The detailed caption of the provided image: {_part(caption)}"
        f"\n\n{_JOINT_CAPTION_NOTE}"
        f"\n\n### A problem to be solved: {reasoner_question(question_text)}"
        f"\n\n### A tentative model response: {_part(tentative)}"
        f"\n \n{_JOINT_TENTATIVE_NOTE}"
        f"\n\n### {ANSWER_FORMAT}"
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
