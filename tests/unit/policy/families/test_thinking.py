"""Thinking captioners: the template's switch, and thoughts that never are part of the caption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from racro_pl.policy.captioner import Captioner
from racro_pl.text.thoughts import without_thoughts
from tests.fakes.chat_templates import use_template
from tests.helpers.families import save_small_family
from tests.unit.policy.conftest import QUESTIONS, build

SWITCHED = "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% else %}<think>\n{% endif %}"
"""Qwen3.5 and GLM: an empty thought where thinking is off, else one that the prompt opens."""
ALWAYS = "<think>\n"
"""Qwen3-VL-Thinking: no switch."""


def thinking_captioner(folder: Path, kind: str, ending: str, special: bool, **policy: object) -> Captioner:
    """A small captioner whose prompts end as those of a thinking model."""
    save_small_family(folder, kind, vocab_size=400)
    template = (folder / "chat_template.jinja").read_text()
    use_template(folder, template.replace("assistant\n{%", f"assistant\n{ending}{{%"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=special)
    tokenizer.save_pretrained(folder)
    return build(folder, **policy)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(("kind", "ending"), [("qwen3_vl", ALWAYS), ("qwen3_5", SWITCHED), ("glm4v", SWITCHED)])
def test_thoughts_are_written_and_are_no_part_of_the_caption(kind, ending, special, tmp_path, monkeypatch):
    """Also where a tokenizer has the tags as special tokens, which are dropped from texts and not sampled otherwise."""
    captioner = thinking_captioner(tmp_path, kind, ending, special)
    tokenizer = captioner.encoder.tokenizer
    close = tokenizer.convert_tokens_to_ids("</think>")
    assert not captioner.banned[close]
    assert captioner.banned[tokenizer.convert_tokens_to_ids("<|im_start|>")]
    end = min(captioner.eos_ids)
    thought, caption = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Red?", "A circle."))
    rows = [thought + [close, *caption, end], [*thought, end], thought]
    width = max(map(len, rows))
    drawn = torch.tensor([row + [end] * (width - len(row)) for row in rows])
    monkeypatch.setattr(captioner.path, "sample", lambda *inputs, **options: (drawn, torch.zeros(drawn.shape)))
    texts = captioner.generate([captioner.encode(QUESTIONS[0])], 3, width, None).texts
    assert [without_thoughts(text) for text in texts] == ["A circle.", "", ""]
    assert texts[0].startswith("<think>Red?</think>")


@pytest.mark.parametrize("kind", ["qwen3_5", "glm4v"])
def test_thinking_is_switched_off_in_the_prompt(kind, tmp_path):
    captioner = thinking_captioner(tmp_path, kind, SWITCHED, special=True, thinking=False)
    prompt = captioner.encode(QUESTIONS[0])
    assert captioner.encoder.tokenizer.decode(prompt.input_ids).endswith("assistant\n<think></think>")
    words = captioner.encoder.tokenizer("A circle.", add_special_tokens=False, return_tensors="pt")["input_ids"]
    assert captioner.encoder.decode(prompt, words) == ["A circle."]
