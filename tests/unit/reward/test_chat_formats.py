"""Reasoners in the chat formats of R1's distilled models and of Qwen3: what they are sent, what is read from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from racro_pl.reward import HttpReasoner, InProcessReasoner
from racro_pl.reward.scorer import Scorer
from racro_pl.text.reasoner_prompt import reasoner_messages
from racro_pl.types import Question, Rewards
from tests.fakes.chat_templates import BOS, EOS, qwen3_tokenizer, r1_tokenizer
from tests.fakes.reasoner_server import FaultServer

QUESTION = Question("0", (), "How many?", "42", "math")
MESSAGES = reasoner_messages("How many?", "Two cats.")
USER = MESSAGES[1]["content"]
R1_PROMPT = f"{BOS}You are a helpful assistant.<｜User｜>{USER}<｜Assistant｜><think>\n"
QWEN3_PROMPT = (
    f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{USER}<|im_end|>\n"
    "<|im_start|>assistant\n"
)


def in_process(folder: Path, tokenizer: Any, answers: Sequence[str]) -> tuple[InProcessReasoner, list[str]]:
    """A reasoner of this format that generates ``answers``, and the prompts that its model read."""
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    # Spare embeddings, as published models have: loading may add a default token of the tokenizer's class.
    config = Qwen2Config(vocab_size=len(tokenizer) + 8, num_key_value_heads=1, **small)
    config.eos_token_id = tokenizer.eos_token_id
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    reasoner = InProcessReasoner(str(folder), max_new_tokens=64)
    reasoner.check()
    read: list[str] = []

    def generate(input_ids: torch.Tensor, attention_mask: torch.Tensor, **sampling: Any) -> torch.Tensor:
        rows = zip(input_ids, attention_mask, strict=True)
        read.extend(reasoner._model.tokenizer.decode(row[mask.bool()]) for row, mask in rows)
        written = reasoner._model.tokenizer(
            [answer + tokenizer.eos_token for answer in answers], add_special_tokens=False, padding=True,
            padding_side="right", return_tensors="pt",
        )  # fmt: skip
        return torch.cat([input_ids, written["input_ids"]], dim=1)

    reasoner._model.model.generate = generate
    return reasoner, read


def score(reasoner: Any, captions: Sequence[str]) -> Rewards:
    scorer = Scorer(reasoner, cache="off")
    try:
        return scorer.submit(QUESTION, captions).result()
    finally:
        scorer.close()


def test_r1_reads_its_first_token_once_and_its_answer_is_what_follows_the_thought(tmp_path):
    """Its template opens the thought, so only the end of it is in the text; decoding must not take that out."""
    answers = ["Is it \\boxed{7}? No.</think>\\boxed{42}", "It is \\boxed{42}.\n</think>\n\nI cannot say."]
    reasoner, read = in_process(tmp_path, r1_tokenizer(), answers)
    rewards = score(reasoner, ["Two cats."] * 2)
    assert read == [R1_PROMPT] * 2
    assert rewards.answers == tuple((f"<think>{answer}",) for answer in answers)
    assert rewards.total == (1.0, 0.0)


def test_a_thought_of_r1_that_was_cut_is_no_answer(tmp_path):
    """Neither tag is in the text; that the prompt has opened the thought tells it from an answer."""
    reasoner, _ = in_process(tmp_path, r1_tokenizer(), ["So it may be \\boxed{42}, but"])
    rewards = score(reasoner, ["Two cats."])
    assert rewards.scored == (False,)
    assert rewards.reasons[0].startswith("no answer: only thoughts")


def test_r1_forgets_the_thoughts_of_earlier_turns():
    chat = [*MESSAGES, {"role": "assistant", "content": "Hm.</think>42"}, {"role": "user", "content": "Sure?"}]
    text = r1_tokenizer().apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.endswith(f"<｜Assistant｜>42{EOS}<｜User｜>Sure?<｜Assistant｜><think>\n")


def test_qwen3_thinks_and_is_read_after_its_thought(tmp_path):
    answers = ["<think>Is it \\boxed{7}?</think>\\boxed{42}", "<think>It is \\boxed{42}, or"]
    reasoner, read = in_process(tmp_path, qwen3_tokenizer(), answers)
    rewards = score(reasoner, ["Two cats."] * 2)
    assert read == [QWEN3_PROMPT] * 2
    # The second was cut in a thought that it had opened itself: there is no answer yet, so no score.
    assert (rewards.total, rewards.scored) == ((1.0, 0.0), (True, False))
    assert rewards.extracted == (("42",), ())


@pytest.mark.parametrize(
    ("extra_body", "opening"),
    [
        (None, ""),
        ({"chat_template_kwargs": {"enable_thinking": True}}, ""),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "<think>\n\n</think>\n\n"),
    ],
)
def test_thinking_is_switched_by_what_the_request_tells_the_template(extra_body, opening):
    with FaultServer() as server:
        reasoner = HttpReasoner(server.url, extra_body=extra_body)
        score(reasoner, ["Two cats."])
    chat = server.chats[-1]
    switches = chat.get("chat_template_kwargs", {})
    text = qwen3_tokenizer().apply_chat_template(
        chat["messages"], tokenize=False, add_generation_prompt=True, **switches
    )
    assert text == QWEN3_PROMPT + opening


def test_answers_with_and_without_thoughts_are_kept_apart():
    """Otherwise a cache would give the ones for the others."""
    switches = [{"chat_template_kwargs": {"enable_thinking": on}} for on in (True, False)]
    assert len({HttpReasoner(model="qwen3", extra_body=switch).identity for switch in switches}) == 2
