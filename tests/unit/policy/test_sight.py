"""The captioner must see: other pixels change what it says of a caption."""

from __future__ import annotations

import inspect

import pytest
import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

from racro_pl.policy.loading import load_encoder
from racro_pl.policy.paths import check_forward
from racro_pl.policy.sight import check_sight
from racro_pl.types import RacroError
from tests.unit.policy.conftest import FAMILIES, QUESTIONS, build


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("changes", [{}, {"lora": None}, {"image_cache_mib": 1}], ids=["lora", "full", "cache"])
def test_a_captioner_that_sees_passes_and_nothing_is_remembered_or_drawn(folders, family, changes):
    captioner = build(folders[family], **changes)
    before = torch.random.get_rng_state()
    assert check_sight(captioner, captioner.encode(QUESTIONS[0])) > 1e-4
    assert check_sight(captioner, captioner.encode(QUESTIONS[1])) > 1e-4  # two images
    assert torch.equal(torch.random.get_rng_state(), before)
    assert captioner.training
    assert not any(captioner.drain_metrics().values())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_swallows_the_image_is_refused(folders, family, monkeypatch):
    """As transformers before 5.18 did: mm_encoder_outputs vanished among the keyword arguments."""
    captioner = build(folders[family])
    inner = captioner.parts()[0].model
    forward = inner.forward
    monkeypatch.setattr(inner, "forward", lambda *args, mm_encoder_outputs=None, **kwargs: forward(*args, **kwargs))
    with pytest.raises(RacroError, match="the captioner does not see"):
        check_sight(captioner, captioner.encode(QUESTIONS[0]))


def test_noise_of_the_arithmetic_is_not_sight(folders, monkeypatch):
    captioner = build(folders["qwen2_5_vl"])
    inner = captioner.parts()[0].model
    forward, calls = inner.forward, []

    def blind(*args, mm_encoder_outputs=None, **kwargs):
        out = forward(*args, **kwargs)
        calls.append(1)
        out.last_hidden_state = out.last_hidden_state * (1 + 1e-6 * len(calls))
        return out

    monkeypatch.setattr(inner, "forward", blind)
    with pytest.raises(RacroError, match="the captioner does not see"):
        check_sight(captioner, captioner.encode(QUESTIONS[0]))


def test_weights_that_are_not_finite_are_not_sight(folders):
    captioner = build(folders["qwen2_5_vl"])
    with torch.no_grad():
        captioner.parts()[0].model.language_model.norm.weight.fill_(float("nan"))
    with pytest.raises(RacroError, match="does not see"):
        check_sight(captioner, captioner.encode(QUESTIONS[0]))


def test_a_forward_that_does_not_name_what_it_is_passed_is_refused_before_any_pass(folders, monkeypatch):
    real = Qwen2_5_VLModel.forward

    def old(self, input_ids=None, position_ids=None, **kwargs):
        return real(self, input_ids=input_ids, position_ids=position_ids, **kwargs)

    monkeypatch.setattr(Qwen2_5_VLModel, "forward", old)
    with pytest.raises(RacroError, match=r"Qwen2_5_VLModel .* does not take mm_encoder_outputs.*>= 5\.18"):
        build(folders["qwen2_5_vl"])


def test_the_signature_that_is_read_is_the_models_own():
    assert "mm_encoder_outputs" in inspect.signature(Qwen2_5_VLModel.forward).parameters

    class Model:
        def forward(self, input_ids, mm_encoder_outputs): ...

    with pytest.raises(RacroError, match="does not take position_ids"):
        check_forward(Model())


def test_the_encoder_of_a_good_folder_checks_itself(folders):
    from racro_pl.policy.config import PolicySettings

    load_encoder(PolicySettings(path=str(folders["qwen2_5_vl"]))).check()
