"""A language model that reads responses for the rule ``vlmevalkit``, and what it is asked.

The prompts ask for what VLMEvalKit's ask for, in words of our own; which judge reads them moves scores by more than
their wording does, so name the judge when you report a number.
"""

from __future__ import annotations

import functools
import threading

from racro_pl.reward.http import HttpReasoner
from racro_pl.text.answers import visible_text

TEMPERATURE_STEP = 0.5
"""Each further attempt at one prompt is sampled this much hotter: 0, 0.5, 1, 1.5, 2, as VLMEvalKit does."""
MAX_TEMPERATURE = 2.0
MAX_SHOWN_CHARS = 20_000
"""The judge is shown the end of a longer response."""
MAX_TOKENS = 1024
DEADLINE_S = 120.0
"""For one question."""

EXTRACT_PROMPT = """\
Below are a question and a model's response to it. Copy the final answer out of the response, and nothing else: the \
option's letter when the question has options, otherwise the number or the short text, without units. Do not solve \
the question yourself. If the response gives no answer, write None.

Example
Question: What is the perimeter of the square, in cm?
Response: Each side is 3 cm long, so all four together are 4 x 3 = 12 cm.
Final answer: 12

Question: {question}
Response: {response}
Final answer:"""
"""Asks for the final answer of a response."""

MATCH_PROMPT = """\
A model was asked a question with options. Which option does its answer come closest to in meaning? Write that \
option's letter alone. Write Z when the answer fits none of them.

Example
Question: Which animal is in the picture?
Options:
A. a cat
B. a dog
Answer: It is a young puppy.
Letter: B

Question: {question}
Options:
{options}
Answer: {response}
Letter:"""
"""Asks for the option that a response means."""

COMPARE_PROMPT = """\
Here are a question, its reference answer and a model's answer. Write 1 if the two answers mean the same (the same \
option, the same value up to units and notation, or the same statement), otherwise 0. Write the digit alone.

Question: {question}
Reference answer: {gold}
Model's answer: {response}
Verdict:"""
"""Asks whether a response, already extracted, means the gold answer: 1 or 0."""

LETTERS_PROMPT = """\
A model answered a question whose options are labelled with letters; more than one may be right. Write the letters of \
all options that the response settles on, joined in capitals without spaces (B, or AC). Write Z if it settles on none.

Question: {question}
Response: {response}
Letters:"""
"""Asks for all letters that a response settles on."""

SHORTEN_PROMPT = """\
Rewrite the answer below in its shortest form. {form} Write nothing else.

Answer: {response}
Short form:"""
"""Asks for a short form of an answer; ``form`` is a sentence that says which."""


def filled(template: str, response: str, **parts: str) -> str:
    """A prompt for the judge, which is shown the end of a long response."""
    return template.format(response=response[-MAX_SHOWN_CHARS:], **parts)


class HttpJudge:
    """A judge model served over the OpenAI protocol. Safe from any thread."""

    def __init__(self, url: str, model: str | None = None, api_key_env: str | None = None) -> None:
        """
        Args:
            url: the server's base URL, such as ``http://127.0.0.1:8000/v1``.
            model: name under which the server serves it. Default: the only one it serves.
            api_key_env: name of the environment variable that holds the API key. Default: no key is sent.
        """
        self._reader_at = functools.partial(
            HttpReasoner, url, model, max_tokens=MAX_TOKENS, deadline_s=DEADLINE_S, api_key_env=api_key_env
        )
        self._lock = threading.Lock()
        self._readers: dict[float, HttpReasoner] = {}
        self._reader(0)

    def check(self) -> None:
        """Make sure that it answers.

        Raises:
            ReasonerError: it does not; the message says what was found and what to change.
        """
        self._reader(0).check()

    def ask(self, prompt: str, sample: int = 0) -> str | None:
        """Its answer without thoughts, greedy for ``sample`` 0 and hotter for every further one; None on any fault."""
        reply = self._reader(sample).submit([[{"role": "user", "content": prompt}]])[0].result()
        return None if reply.text is None else visible_text(reply.text).strip()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            for reader in self._readers.values():
                reader.close()

    def _reader(self, sample: int) -> HttpReasoner:
        temperature = min(TEMPERATURE_STEP * sample, MAX_TEMPERATURE)
        with self._lock:
            if temperature not in self._readers:
                self._readers[temperature] = self._reader_at(temperature=temperature)
            return self._readers[temperature]
