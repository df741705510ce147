"""What the special parts of a family are for: without one of them, the matrix would fail by far."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from PIL import Image
from transformers.models.smolvlm import processing_smolvlm

from racro_pl.images import ImageError
from racro_pl.policy import families, paths
from racro_pl.policy import prompts as prompts_module
from racro_pl.policy.attention import GroupAttention, PromptSight
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_encoder
from racro_pl.policy.recurrent import LayerState
from racro_pl.policy.sampling import sample_captions
from racro_pl.types import RacroError
from tests.helpers.device import there
from tests.helpers.families import BUILDERS
from tests.helpers.tolerance import LOGPROBS, difference
from tests.unit.policy.conftest import QUESTIONS, build, picture, question
from tests.unit.policy.families.stock import stock_logprobs

TOKENS, MASK = there(
    torch.randint(60, 200, (2, 6), generator=torch.Generator().manual_seed(0)), torch.ones(2, 6, dtype=torch.bool)
)
REFUSED = {("mistral3", (200, 1)), ("mistral3", (1, 200))}
"""Families and sizes (width, height) that the family's own processor raises for."""


def error(captioner: Captioner) -> float:
    """How far packed log-probs are off, in multiples of what rounding explains."""
    with torch.no_grad():
        expected = stock_logprobs(captioner, QUESTIONS[0], TOKENS, MASK)
        found, _ = captioner.logprobs([captioner.encode(QUESTIONS[0])], torch.tensor([0, 0]), TOKENS, MASK)
    return difference(found, expected) / LOGPROBS


@pytest.mark.parametrize("kind", ["gemma3", "gemma4", "molmo2"])
def test_without_two_way_blocks_log_probs_are_wrong(small, kind):
    captioner = build(small(kind))
    assert error(captioner) <= 1
    captioner.path.two_way = None
    assert error(captioner) > 20


@pytest.mark.parametrize("kind", ["llava_next", "gemma3"])
def test_without_windows_log_probs_are_wrong(small, kind, monkeypatch):
    captioner = build(small(kind))
    stock = GroupAttention.__call__

    def unbounded(self, layer, query, key, value, scaling, window=None):
        return stock(self, layer, query, key, value, scaling, None)

    monkeypatch.setattr(GroupAttention, "__call__", unbounded)
    assert error(captioner) > 100


@pytest.mark.parametrize("kind", ["qwen3_5", "lfm2_vl"])
def test_captions_that_begin_without_their_prompts_state_are_wrong(small, kind, monkeypatch):
    captioner = build(small(kind))
    monkeypatch.setattr(LayerState, "select", lambda self, rows: LayerState())
    assert error(captioner) > 100


def test_blocks_on_layers_without_a_window_are_wrong_for_gemma_4(small, monkeypatch):
    captioner = build(small("gemma4"))
    stock = PromptSight.__init__
    monkeypatch.setattr(PromptSight, "__init__", lambda self, rows, blocks=None, **_: stock(self, rows, blocks))
    assert error(captioner) > 20


def test_a_chat_without_images_reaches_a_template_that_walks_parts(small):
    encoder = build(small("llava")).encoder
    prompt = encoder.encode_text([{"role": "user", "content": "is it red ?"}])
    assert "is it red ?" in encoder.tokenizer.decode(prompt.input_ids)


def test_the_beginning_of_text_is_written_once(small):
    """The template writes it, and the tokenizer would too."""
    encoder = build(small("llava")).encoder
    tokenizer = encoder.tokenizer
    begin = tokenizer.bos_token_id
    asked = []
    stock = encoder.processor.tokenizer.__class__.__call__
    encoder._template = prompts_module.chat_template_of(
        type("Owner", (), {"chat_template": "{{ bos_token }}" + encoder.processor.chat_template}), tokenizer, "it"
    )

    def adding(self, text, *args, add_special_tokens=True, **options):
        asked.append(add_special_tokens)
        text = [tokenizer.bos_token * add_special_tokens + each for each in text] if isinstance(text, list) else text
        return stock(self, text, *args, add_special_tokens=False, **options)

    tokenizer.__class__ = type("Adding", (tokenizer.__class__,), {"__call__": adding})
    ids = encoder.encode(QUESTIONS[0]).input_ids
    assert ids.tolist().count(begin) == 1
    assert asked == [False]


def test_a_package_that_a_processor_needs_is_named(small, monkeypatch):
    captioner = build(small("smolvlm"))
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(RacroError, match=r"pip install 'racro-pl\[smolvlm\]'"):
        load_encoder(PolicySettings(path=str(captioner.model.get_base_model().name_or_path)))


@pytest.mark.parametrize("kind", ["smolvlm", "internvl", "lfm2_vl", "minicpmv4_6"])
def test_fewer_pixels_are_fewer_image_tokens(small, kind):
    item = question("wide", "what ?", picture(120, 60, 1))
    many, few = (build(small(kind), min_pixels=1, max_pixels=high).encoder.count_tokens(item) for high in (10**6, 1100))
    assert few < many


@pytest.mark.parametrize("size", [(1, 1), (200, 1), (1, 200)])
@pytest.mark.parametrize("kind", BUILDERS)
def test_the_smallest_and_the_longest_pictures_are_read_or_refused(small, kind, size):
    encoder = load_encoder(PolicySettings(path=str(small(kind)), min_pixels=56 * 56, max_pixels=128 * 128))
    item = question("odd", "what ?", picture(*size, 1))
    if (kind, size) in REFUSED:
        with pytest.raises(ImageError, match=f"does not take the image .{size[0]}x{size[1]}"):
            encoder.encode(item)
    else:
        assert encoder.count_tokens(item) == len(encoder.encode(item).input_ids)


def test_a_processor_that_fails_on_every_image_is_no_fault_of_one_image(small, monkeypatch):
    encoder = build(small("llava")).encoder

    def broken(*args, images=None, **options):
        raise TypeError("an argument too many")

    monkeypatch.setattr(encoder, "processor", broken)
    with pytest.raises(TypeError, match="an argument too many"):
        encoder._process("text", [Image.new("RGB", (40, 30))])


def test_a_family_that_the_installed_transformers_does_not_read_right_is_refused(monkeypatch):
    monkeypatch.setattr(families, "version", lambda package: "5.18.0")
    assert families.family_of("qwen2_vl").transformers is None
    with pytest.raises(RacroError, match=r"'molmo2' needs transformers 5\.20 or newer; 5\.18\.0 is installed"):
        families.family_of("molmo2")


def test_recurrent_layers_keep_the_loop_that_captions_leave_and_it_is_said(small, monkeypatch):
    captioner = build(small("lfm2_vl"))
    prompts = [captioner.encode(QUESTIONS[0])]
    expected = captioner.generate(prompts, 2, 6, None)
    monkeypatch.setattr(paths, "sample_captions", partial(sample_captions, static=True))
    with pytest.warns(UserWarning, match="without a CUDA graph.*recurrent layers"):
        found = captioner.generate(prompts, 2, 6, None)
    assert torch.equal(found.token_ids, expected.token_ids)
