"""Every family: packed equals repeated, with every gradient; greedy captions are those of ``generate``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

from racro_pl.policy import paths
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.families import FAMILIES
from racro_pl.policy.memory.formulas import Work
from racro_pl.policy.memory.ledger import memory_ledger
from racro_pl.policy.sampling import sample_captions
from tests.helpers.device import there
from tests.helpers.families import BUILDERS
from tests.helpers.tolerance import GRADIENTS, LOGPROBS, assert_equal
from tests.unit.policy.conftest import QUESTIONS, build
from tests.unit.policy.families.stock import stock_greedy, stock_logprobs

PAGE = Path(__file__).parents[4] / "docs/models.md"
LENGTHS = torch.tensor([5, 1, 7, 3, 6, 4, 1])
GROUP = torch.tensor([0, 0, 0, 1, 1, 2, 3])


def captions() -> tuple[Tensor, Tensor]:
    tokens = torch.randint(60, 200, (7, 7), generator=torch.Generator().manual_seed(0))
    return tokens, torch.arange(7) < LENGTHS[:, None]


def gradients(captioner: Captioner, logprobs: Tensor, mask: Tensor) -> dict[str, Tensor]:
    weights, mask = there(torch.randn(mask.shape, generator=torch.Generator().manual_seed(1)), mask)
    captioner.zero_grad()
    (weights * logprobs.masked_fill(~mask, 0.0)).sum().backward()
    return {name: p.grad.clone() for name, p in captioner.named_parameters() if p.grad is not None}


def check_packed(captioner: Captioner) -> None:
    """Several groups, images of several sizes, one prompt with two images and one with none, captions of length 1."""
    tokens, mask = captions()
    longest = [int(LENGTHS[group == GROUP].max()) for group in range(len(QUESTIONS))]
    rows = []
    for group, question in enumerate(QUESTIONS):
        of, t = (group == GROUP).nonzero()[:, 0], longest[group]
        rows.append((of, t, stock_logprobs(captioner, question, tokens[of, :t], mask[of, :t])))
    expected = torch.cat([torch.nn.functional.pad(found, (0, mask.shape[1] - t)) for _, t, found in rows])
    prompts = [captioner.encode(question) for question in QUESTIONS]
    expected_gradients = gradients(captioner, expected, mask)
    found, _ = captioner.logprobs(prompts, GROUP, tokens, mask)
    assert_equal(found[mask], expected[mask], LOGPROBS, "log-prob")
    found_gradients = gradients(captioner, found, mask)
    assert found_gradients.keys() == expected_gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected_gradients.values())
    for name, gradient in found_gradients.items():
        assert torch.isfinite(gradient).all(), name
        # A layer whose gradient is all cancellation is as exact as what cancels in it.
        floor = expected_gradients[name].abs().max().clamp(min=1e-3 * largest)
        assert_equal(gradient, expected_gradients[name], GRADIENTS, name, summed=floor)
    assert sum(float(gradient.abs().max()) > 0 for gradient in found_gradients.values()) == len(found_gradients)


@pytest.mark.parametrize("kind", BUILDERS)
def test_packed_equals_repeated(captioner_of, kind):
    check_packed(captioner_of(kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", BUILDERS)
def test_packed_equals_repeated_without_checkpointing(small, kind):
    check_packed(build(small(kind), gradient_checkpointing=False))


@pytest.mark.parametrize("kind", BUILDERS)
def test_greedy_captions_are_those_of_generate(captioner_of, kind, monkeypatch):
    """By the loop that captions leave, and by the one that a CUDA graph replays; the latter keeps no states."""
    captioner = captioner_of(kind)
    prompts = [captioner.encode(question) for question in QUESTIONS]
    expected = [stock_greedy(captioner, question, 8) for question in QUESTIONS for _ in range(2)]
    recurrent = FAMILIES[kind.split("-")[0]].recurrent is not None
    for static in (False,) if recurrent else (False, True):
        monkeypatch.setattr(paths, "sample_captions", partial(sample_captions, static=static))
        captions = captioner.generate(prompts, group_size=2, max_new_tokens=8, temperature=None)
        assert [row[real].tolist() for row, real in zip(captions.token_ids, captions.mask, strict=True)] == expected


@pytest.mark.parametrize("kind", BUILDERS)
def test_counted_prompt_tokens_are_those_encoded(captioner_of, kind):
    encoder = captioner_of(kind).encoder
    for question in QUESTIONS:
        assert encoder.count_tokens(question) == len(encoder.encode(question).input_ids)


def test_every_described_family_is_in_the_matrix():
    assert set(FAMILIES) == {kind.split("-")[0] for kind in BUILDERS}


def test_the_page_has_a_row_for_every_family_and_says_which_vllm_samples_for():
    table = PAGE.read_text().split("## Families")[1].strip().split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert {row[0] for row in rows} == FAMILIES.keys()
    for kind, *tested, vllm, _, notes in rows:
        assert tested == 4 * ["yes"]
        assert vllm.startswith("yes") == (not isinstance(FAMILIES[kind].vllm, str)), kind
        assert (f"transformers {FAMILIES[kind].transformers}" in notes) == (FAMILIES[kind].transformers is not None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", BUILDERS)
def test_a_ledger_is_computed(small, kind):
    config = AutoConfig.from_pretrained(small(kind))
    settings = PolicySettings(path="", quantization="nf4")
    ledger = memory_ledger(config, settings, Work(400, 300, 20, 4, groups=1, questions=2, sampled_together=2))
    assert all(entry.bytes > 0 for entry in ledger.entries)
    width = 2 * max(config.get_text_config().hidden_size, 1)
    assert ledger.bytes_of("image features of the step") >= 2 * 300 * width
