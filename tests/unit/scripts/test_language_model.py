"""A pretrained language model as a reasoner: what it is taught, the packed row that teaches it, the published table."""

from __future__ import annotations

import doctest
import json
import random
from pathlib import Path

import pytest
import torch
from language_model_reasoner import NAME, TITLES, TRUE, language_model_table
from peft import LoraConfig, get_peft_model
from reckoning_models import language_model
from reckoning_models.language_model import packed, reply_loss, worked_out
from reckoning_models.rows import draw_asked
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from racro_pl.figure_world.models import resolve_model
from racro_pl.reckoning_world.world import ASKED
from racro_pl.text.answers import last_boxed

ROOT = Path(__file__).parents[3]
ROWS = [([5, 6, 7, 8], [20, 21]), ([5, 6, 9], [22]), ([5, 6, 7, 9, 10], [23, 24, 25])]
"""Prompts that begin alike, and replies."""


def test_a_reply_boxes_what_follows_from_the_caption():
    assert doctest.testmod(language_model).failed == 0
    rng = random.Random(0)
    for asked, _ in (draw_asked(rng, tuple(ASKED)) for _ in range(200)):
        text = worked_out(asked)
        assert last_boxed(text) == asked.answer(None)
        assert ("unknown" in text) == (None in asked.stated)


def test_a_packed_row_begins_with_what_all_share_and_no_row_sees_another():
    ids, positions, targets, seen = packed(ROWS)
    assert ids.tolist() == [[5, 6, 7, 8, 20, 21, 9, 22, 7, 9, 10, 23, 24, 25]]
    assert positions.tolist() == [[0, 1, 2, 3, 4, 5, 2, 3, 2, 3, 4, 5, 6, 7]]
    assert targets.tolist() == [[-100, -100, -100, 20, 21, -100, 22, -100, -100, -100, 23, 24, 25, -100]]
    assert seen.shape == (1, 1, 14, 14)
    assert seen[0, 0, 7].nonzero().flatten().tolist() == [0, 1, 6, 7]
    assert seen[0, 0, 5].nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_a_packed_rows_loss_and_gradient_are_those_of_the_rows_one_by_one():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    adapted = LoraConfig(r=2, lora_alpha=4, target_modules=language_model.TARGETS, init_lora_weights=False)
    model = get_peft_model(LlamaForCausalLM(config), adapted)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    loss = reply_loss(model, ROWS)
    gradients = torch.autograd.grad(loss, trained)
    alone = torch.zeros(())
    for prompt, reply in ROWS:
        logits = model(input_ids=torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
        alone = alone + nn.functional.cross_entropy(logits, torch.tensor(reply), reduction="sum") / 6
    assert loss.item() == pytest.approx(alone.item(), rel=1e-5)
    for gradient, expected in zip(gradients, torch.autograd.grad(alone, trained), strict=True):
        assert torch.allclose(gradient, expected, atol=1e-6)


def test_what_is_taught_is_merged_into_a_model_folder(tmp_path):
    path = resolve_model("embedded:reckoning-strong")
    language_model.teach(path, tmp_path, steps=2, size=2, rate=1e-3, seed=0)
    before, after = (AutoModelForCausalLM.from_pretrained(each).state_dict() for each in (path, tmp_path))
    assert before.keys() == after.keys()
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(language_model.TARGETS)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == len(AutoTokenizer.from_pretrained(path))


def test_the_table_tells_right_answers_by_captions_and_boxes_over_all():
    plain, adapted = TITLES
    found = {
        plain: {TRUE: {"right": 0.0, "boxed": 0.05}},
        adapted: {
            "before": {"right": 0.25, "boxed": 0.9},
            "after": {"right": 0.875, "boxed": 0.9},
            TRUE: {"right": 1.0, "boxed": 0.96},
        },
    }
    lines = language_model_table(found).splitlines()
    assert lines[2] == "| SmolLM2-135M as it comes |  |  | 0.0 | 5.0 |"
    assert lines[3] == "| SmolLM2-135M, LoRA on text | 25.0 | 87.5 | 100.0 | 92.0 |"


def test_the_published_table_is_that_of_the_published_figures():
    found = json.loads((ROOT / f"docs/results/{NAME}.json").read_text())
    block = f"<!-- {NAME} -->\n{language_model_table(found)}\n<!-- /{NAME} -->"
    assert block in (ROOT / "docs/experiments.md").read_text()
