"""The loop that CUDA graphs replay, run as ordinary code: the same captions as the loop in which captions leave."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from racro_pl.policy import decode_attention, decoding, paths
from racro_pl.policy.captioner import Captions
from racro_pl.policy.sampling import sample_captions
from tests.helpers.tolerance import LOGPROBS, assert_equal
from tests.unit.policy.conftest import FAMILIES, QUESTIONS, build


def both(monkeypatch, captioner, group_size: int, tokens: int, temperature: float | None) -> list[Captions]:
    """What the growing and the static loop write from one state of the random numbers."""
    prompts = [captioner.encode(item) for item in QUESTIONS]
    found = []
    for static in (False, True):
        monkeypatch.setattr(
            paths, "sample_captions",
            lambda *given, static=static, **named: sample_captions(*given, **named, static=static),
        )  # fmt: skip
        torch.manual_seed(0)
        found.append(captioner.generate(prompts, group_size, tokens, temperature))
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [None, 0.8])
def test_endless_captions_are_the_same(folders, family, temperature, monkeypatch):
    captioner = build(folders[family])
    captioner.eos_ids = frozenset({-1})
    growing, static = both(monkeypatch, captioner, 3, 20, temperature)
    assert torch.equal(growing.token_ids, static.token_ids)
    assert growing.token_ids.shape == (12, 20)
    assert_equal(static.logprobs, growing.logprobs, LOGPROBS)


@pytest.mark.parametrize("fewest", [decoding.FEWEST_ROWS, 0])
def test_captions_that_end_change_nothing_for_the_others(folders, fewest, monkeypatch):
    """``fewest`` 0: those that have ended leave when half of them have."""
    monkeypatch.setattr(decoding, "FEWEST_ROWS", fewest)
    monkeypatch.setattr(decoding, "LOOK_EVERY", 2)
    captioner = build(folders["qwen2_5_vl"])
    captioner.model.get_base_model().lm_head.register_forward_hook(lambda _, __, logits: logits.roll(7, dims=-1))
    captioner.eos_ids = frozenset({-1})
    prompts = [captioner.encode(item) for item in QUESTIONS]
    endless = captioner.generate(prompts, 1, 16, None).token_ids
    captioner.eos_ids = frozenset({int(endless[row, step]) for row, step in ((0, 1), (1, 3), (2, 11))})
    left = []
    keep = decoding.StaticStep.keep_writing
    monkeypatch.setattr(decoding.StaticStep, "keep_writing", lambda step: (keep(step), left.append(len(step.ended))))
    growing, static = both(monkeypatch, captioner, 1, 16, None)
    assert torch.equal(growing.token_ids, static.token_ids)
    assert torch.equal(growing.mask, static.mask)
    assert len(set(static.mask.sum(dim=1).tolist())) > 2
    assert bool(left) == (fewest == 0)


def test_the_loop_ends_soon_after_the_last_caption(folders, monkeypatch, on_cpu):
    captioner = build(folders["qwen2_5_vl"])
    captioner.eos_ids = frozenset(range(len(captioner.banned)))  # whatever is drawn ends
    steps = []
    call = decoding.StaticStep.__call__
    monkeypatch.setattr(decoding.StaticStep, "__call__", lambda step: (call(step), steps.append(0)))
    growing, static = both(monkeypatch, captioner, 2, 64, None)
    assert torch.equal(growing.token_ids, static.token_ids)
    assert static.token_ids.shape == (8, 1)
    assert len(steps) == decoding.LOOK_EVERY


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_tokens_are_drawn_from_the_distribution_that_the_trainer_scores(folders, temperature, monkeypatch):
    captioner = build(folders["qwen3_vl"])
    captioner.eos_ids = frozenset(captioner.eos_ids) | set(range(8, 60))
    _, captions = both(monkeypatch, captioner, 5, 10, temperature)
    assert len(set(captions.mask.sum(dim=1).tolist())) > 1
    group = torch.arange(4).repeat_interleave(5)
    prompts = [captioner.encode(item) for item in QUESTIONS]
    scored = captioner.frozen_logprobs(
        prompts, group, captions.token_ids, captions.mask, temperature, reference=False
    )  # fmt: skip
    assert_equal(captions.logprobs, scored, LOGPROBS)


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_that_outgrow_their_room_are_the_same(folders, family, monkeypatch):
    monkeypatch.setattr(decode_attention, "FIRST_STATIC_ROOM", 16)
    captioner = build(folders[family])
    captioner.eos_ids = frozenset({-1})
    grown = []
    make_room = decoding.StaticStep.make_room
    monkeypatch.setattr(
        decoding.StaticStep, "make_room", lambda step, tokens: grown.append(make_room(step, tokens)) or grown[-1]
    )
    growing, static = both(monkeypatch, captioner, 2, 70, None)
    assert torch.equal(growing.token_ids, static.token_ids)
    assert static.token_ids.shape == (8, 70)
    assert grown == [True, True, False, True]  # 32, 64 and all 80


def test_short_captions_take_no_room_for_long_ones(folders, monkeypatch):
    """``test`` lets a caption have 8,192 tokens, and few have more than some hundreds."""
    captioner = build(folders["qwen2_5_vl"])
    captioner.eos_ids = frozenset(range(len(captioner.banned)))  # whatever is drawn ends
    rooms = []
    append = decode_attention.StaticAttention._append

    def watched(*given):
        keys, values = append(*given)
        rooms.append(keys.shape[2])
        return keys, values

    monkeypatch.setattr(decode_attention.StaticAttention, "_append", watched)
    both(monkeypatch, captioner, 1, 8192, None)
    assert set(rooms) == {decode_attention.FIRST_STATIC_ROOM}


def test_logits_that_are_not_numbers_are_an_error(folders, monkeypatch):
    captioner = build(folders["qwen2_5_vl"])
    captioner.model.get_base_model().lm_head.register_forward_hook(lambda _, __, logits: logits * float("nan"))
    prompts = [captioner.encode(item) for item in QUESTIONS]
    monkeypatch.setattr(
        paths, "sample_captions",
        lambda *given, **named: sample_captions(*given, **named, static=True),
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="not a number"):
        captioner.generate(prompts, 2, 4, 1.0)


def test_memory_that_runs_out_while_a_graph_is_captured_is_told(monkeypatch):
    """Without the graph there would be no memory either, and Preflight advises on this error."""

    def out_of_memory():
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", out_of_memory)
    step = SimpleNamespace(ended=SimpleNamespace(device=SimpleNamespace(type="cuda")))
    with pytest.raises(torch.OutOfMemoryError):
        decoding.captured(step)
