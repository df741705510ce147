"""A fit does not begin with a captioner that does not see."""

from __future__ import annotations

import dataclasses

import pytest
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

from racro_pl.types import RacroError
from tests.unit.training.conftest import ListData, fit, make_module


def test_a_fit_says_that_its_captioner_sees(folder, tmp_path, capsys):
    fit(make_module(folder), tmp_path)
    assert "the captioner sees: other pixels change a caption's log-probs by up to" in capsys.readouterr().out


def test_a_captioner_whose_images_are_swallowed_is_refused_before_the_first_step(folder, tmp_path, monkeypatch):
    forward = Qwen2_5_VLModel.forward

    def blind(self, input_ids=None, position_ids=None, mm_encoder_outputs=None, pixel_values=None, **kwargs):
        return forward(self, input_ids=input_ids, position_ids=position_ids, **kwargs)

    monkeypatch.setattr(Qwen2_5_VLModel, "forward", blind)
    module = make_module(folder)
    with pytest.raises(RacroError, match="the captioner does not see"):
        fit(module, tmp_path)
    assert module.last_step == []


def test_questions_without_images_are_trained_and_the_probe_says_that_it_was_not_made(
    folder, tmp_path, monkeypatch, capsys
):
    init = ListData.__init__

    def imageless(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.questions["train"] = [dataclasses.replace(q, images=()) for q in self.questions["train"]]

    monkeypatch.setattr(ListData, "__init__", imageless)
    fit(make_module(folder), tmp_path)
    assert "whether the captioner sees was not tried" in capsys.readouterr().out
