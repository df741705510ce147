"""Sampling as a CUDA graph: what it writes, and that it is one. ``pytest --device cuda -m gpu``."""

from __future__ import annotations

import warnings

import pytest
import torch

from racro_pl.policy import decode_attention, decoding, paths
from racro_pl.policy.sampling import sample_captions
from tests.helpers.tolerance import LOGPROBS
from tests.unit.policy.conftest import FAMILIES, QUESTIONS, build

pytestmark = pytest.mark.gpu
KINDS = [{}, {"dtype": "bfloat16"}, {"quantization": "nf4", "dtype": "bfloat16"}]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("temperature", [None, 0.8])
def test_replayed_captions_are_those_launched_one_by_one(
    folders, family, kind, temperature, monkeypatch, record_property
):
    """More captions than end at once, so that a second graph of fewer rows is captured on the way."""
    monkeypatch.setattr(decoding, "FEWEST_ROWS", 4)
    captioner = build(folders[family], **kind)
    captioner.eos_ids = frozenset(captioner.eos_ids) | set(range(8, 40))
    prompts = [captioner.encode(item) for item in QUESTIONS]
    captures = []
    capture = decoding.captured

    def counted(step: decoding.StaticStep):
        captures.append(len(step.ended))
        return capture(step)

    monkeypatch.setattr(decoding, "captured", counted)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # the warning of a graph that cannot be captured
        replayed = captioner.generate(prompts, 6, 70, temperature)
    record_property("rows_captured", captures)
    monkeypatch.setattr(decoding, "captured", lambda step: step)
    torch.manual_seed(0)
    launched = captioner.generate(prompts, 6, 70, temperature)
    same = (replayed.token_ids == launched.token_ids).float().mean() if (
        replayed.token_ids.shape == launched.token_ids.shape
    ) else torch.tensor(0.0)  # fmt: skip
    record_property("same_tokens", f"{float(same):.4f}")
    assert captures
    if temperature is None or not kind:
        assert torch.equal(replayed.token_ids, launched.token_ids)
    group = torch.arange(4).repeat_interleave(6)
    scored = captioner.frozen_logprobs(
        prompts, group, replayed.token_ids, replayed.mask, temperature or 1.0, reference=False
    )  # fmt: skip
    if temperature is not None:
        gap = (scored - replayed.logprobs).abs()
        record_property("mean_gap_per_token", f"{float(gap[replayed.mask].mean()):.3g}")
        assert gap[replayed.mask].mean() < (0.03 if kind else LOGPROBS * 10)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_static_captions_are_those_of_the_growing_loop(folders, kind, monkeypatch, record_property):
    """Greedy, where both take other kernels: a token may differ where two logits are as good as equal."""
    captioner = build(folders["qwen2_5_vl"], **kind)
    prompts = [captioner.encode(item) for item in QUESTIONS]
    replayed = captioner.generate(prompts, 2, 24, None)
    monkeypatch.setattr(
        paths, "sample_captions", lambda *given, **named: sample_captions(*given, **named, static=False)
    )
    growing = captioner.generate(prompts, 2, 24, None)
    width = min(replayed.token_ids.shape[1], growing.token_ids.shape[1])
    same = float((replayed.token_ids[:, :width] == growing.token_ids[:, :width]).float().mean())
    record_property("same_tokens", f"{same:.4f}")
    assert same > (0.7 if kind else 0.999)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_captions_that_outgrow_their_room_are_captured_again(folders, kind, monkeypatch):
    monkeypatch.setattr(decode_attention, "FIRST_STATIC_ROOM", 32)
    captioner = build(folders["qwen2_5_vl"], **kind)
    captioner.eos_ids = frozenset({-1})
    prompts = [captioner.encode(item) for item in QUESTIONS]
    captures = []
    capture = decoding.captured
    monkeypatch.setattr(decoding, "captured", lambda step: captures.append(1) or capture(step))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        replayed = captioner.generate(prompts, 3, 100, None)
    assert len(captures) == 3  # for 32, 64 and all 112 tokens
    monkeypatch.setattr(decoding, "captured", lambda step: step)
    launched = captioner.generate(prompts, 3, 100, None)
    assert torch.equal(replayed.token_ids, launched.token_ids)


def test_new_weights_are_seen_by_the_next_graph(folders):
    """A graph lives for one call: what it replays reads the weights of that call."""
    captioner = build(folders["qwen2_5_vl"])
    captioner.eos_ids = frozenset({-1})
    prompts = [captioner.encode(item) for item in QUESTIONS]
    before = captioner.generate(prompts, 2, 20, None).token_ids
    with torch.no_grad():
        for name, parameter in captioner.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.5)
    after = captioner.generate(prompts, 2, 20, None).token_ids
    assert not torch.equal(before, after)


def test_a_step_that_cannot_be_captured_is_launched_one_by_one(folders, monkeypatch):
    """The same captions, by the same numbers; the stream is the one of before, and the next call has its graph."""
    captioner = build(folders["qwen2_5_vl"])
    captioner.eos_ids = frozenset({-1})
    prompts = [captioner.encode(item) for item in QUESTIONS]
    stream = torch.cuda.current_stream()

    def looks(*_: object) -> None:
        if torch.cuda.is_current_stream_capturing():
            torch.ones(1, device=captioner.device).item()  # the host waits, which ends a capture

    layers = captioner.model.get_base_model().model.language_model.layers
    hook = layers[-1].register_forward_hook(looks)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="without a CUDA graph"):
        found = captioner.generate(prompts, 3, 40, 0.8)
    assert torch.cuda.current_stream() == stream
    hook.remove()
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "captured", lambda step: step)
        torch.manual_seed(0)
        launched = captioner.generate(prompts, 3, 40, 0.8)
    assert torch.equal(found.token_ids, launched.token_ids)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        captioner.generate(prompts, 3, 40, 0.8)
