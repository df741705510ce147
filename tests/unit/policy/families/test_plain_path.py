"""The plain path computes what the shared-prefix path does, and takes a class that no family describes."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from racro_pl.policy import plain_path
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_captioner, load_for_inference, policy_family
from racro_pl.policy.packing_probe import FLOAT32_LEAST, check_plain, takes_batches
from racro_pl.policy.paths import SharedPrefixPath
from racro_pl.policy.plain_path import PlainPath
from racro_pl.types import RacroError
from tests.fakes.models import small_tokenizer
from tests.helpers.device import there
from tests.helpers.families import BUILDERS
from tests.helpers.tolerance import GRADIENTS, LOGPROBS, NATS, assert_equal
from tests.unit.policy.conftest import QUESTIONS, build
from tests.unit.policy.families.stock import stock_logprobs
from tests.unit.policy.families.test_matrix import GROUP, captions, gradients


def scores(captioner: Captioner) -> list[dict[str, torch.Tensor] | torch.Tensor]:
    """Log-probs, entropies, and the LoRA gradients of a loss."""
    tokens, mask = there(*captions())
    mask[3] = False  # a caption that is left out of the loss
    prompts = [captioner.encode(question) for question in QUESTIONS]
    logprobs, entropies = captioner.logprobs(prompts, GROUP, tokens, mask, temperature=0.7)
    assert not logprobs[~mask].any()
    assert not entropies[~mask].any()
    return [logprobs.detach(), entropies, gradients(captioner, logprobs, mask)]


@pytest.mark.parametrize("kind", ["qwen3_vl", "gemma3", "lfm2_vl"])
def test_plain_equals_packed(small, kind):
    captioner = build(small(kind))
    packed = scores(captioner)
    captioner.use_plain_path("for this test")
    plain = scores(captioner)
    assert_equal(plain[0], packed[0], LOGPROBS, "log-prob")
    assert_equal(plain[1], packed[1], LOGPROBS, "entropy")
    largest = max(float(gradient.abs().max()) for gradient in packed[2].values())
    assert plain[2].keys() == packed[2].keys()
    for name, gradient in plain[2].items():
        floor = packed[2][name].abs().max().clamp(min=1e-3 * largest)
        assert_equal(gradient, packed[2][name], GRADIENTS, name, summed=floor)


@pytest.mark.slow
@pytest.mark.parametrize("kind", BUILDERS)
def test_the_captions_of_a_prompt_stand_in_one_batch_in_every_family(small, kind):
    captioner = build(small(kind))
    if captioner.plain_because is None:
        captioner.use_plain_path("for this test")
    assert check_plain(captioner) < FLOAT32_LEAST
    # MiniCPM-V strings the patches of all images along another dimension, and says so by failing.
    assert takes_batches(captioner) == (kind != "minicpmv4_6")


def test_a_class_that_wants_copies_in_another_order_gets_one_caption_at_a_time(small, monkeypatch):
    captioner = build(small("qwen3_vl"))
    captioner.use_plain_path("for this test")
    stock = plain_path._inputs

    def interleaved(model, prompt, ids, real):
        """Each row of patches beside its copy: rows of the batch then see parts of both copies of two images."""
        vision = {name: tensor.repeat_interleave(len(ids), dim=0) for name, tensor in prompt.vision.items()}
        return stock(model, prompt, ids, real) | {name: tensor.to(ids.device) for name, tensor in vision.items()}

    monkeypatch.setattr(plain_path, "_inputs", interleaved)
    assert takes_batches(captioner)
    assert check_plain(captioner) < FLOAT32_LEAST
    assert not takes_batches(captioner)
    written = captioner.generate([captioner.encode(QUESTIONS[0])], 3, 4, 1.0)
    assert written.token_ids.shape[0] == 3


@pytest.mark.parametrize("kind", ["qwen3_vl", "gemma3"])
def test_greedy_captions_are_those_of_the_shared_prefix_path(small, kind):
    captioner = build(small(kind))
    prompts = [captioner.encode(question) for question in QUESTIONS]
    captioner.eos_ids = frozenset(captioner.eos_ids) | set(range(60, 100))  # some end early
    expected = captioner.generate(prompts, 1, 8, None)
    captioner.use_plain_path("for this test")
    found = captioner.generate(prompts, 1, 8, None)
    assert torch.equal(found.token_ids[found.mask], expected.token_ids[expected.mask])
    assert torch.equal(found.mask, expected.mask)
    assert (found.texts, found.truncated) == (expected.texts, expected.truncated)
    assert not found.logprobs.any()
    assert int(found.mask.sum(dim=1).min()) > 1 or len(set(found.mask.sum(dim=1).tolist())) > 1


def test_a_class_that_nobody_described_is_trained_and_sampled_by_its_own_forward(small):
    """With dropout in its config: captions are scored as they were sampled all the same."""
    captioner = build(small("vipllava"))
    assert captioner.plain_because == (
        "the model type 'vipllava' is not described in docs/models.md (policy.min_pixels and max_pixels do not reach "
        "its processor)"
    )
    # What its generation config says must not change what is sampled.
    captioner.parts()[0].generation_config = GenerationConfig(repetition_penalty=3.0, top_k=2)
    prompts = [captioner.encode(question) for question in QUESTIONS[:2]]
    torch.manual_seed(0)
    drawn = captioner.generate(prompts, 3, 6, temperature=0.7)
    assert captioner.parts()[0].generation_config.top_k == 2
    assert len({tuple(row.tolist()) for row in drawn.token_ids}) == 6
    group = torch.arange(2).repeat_interleave(3)
    assert captioner.training
    scored, _ = captioner.logprobs(prompts, group, drawn.token_ids, drawn.mask, temperature=0.7)
    torch.testing.assert_close(scored.detach(), drawn.logprobs, rtol=0, atol=NATS)
    assert not captioner.banned[drawn.token_ids[drawn.mask]].any()
    expected = stock_logprobs(captioner, QUESTIONS[0], drawn.token_ids[:3], drawn.mask[:3])
    found, _ = captioner.logprobs(prompts, group, drawn.token_ids, drawn.mask)
    assert_equal(found[:3][drawn.mask[:3]], expected[drawn.mask[:3]], LOGPROBS)


def test_for_inference_too_the_slower_path_is_said(small, caplog):
    captioner = load_for_inference(PolicySettings(path=str(small("vipllava")), dtype="float32"), torch.device("cpu"))
    assert "written by transformers' own generate, one at a time: the model type 'vipllava' is not" in caplog.text
    assert captioner.generate([captioner.encode(QUESTIONS[0])], 1, 4, None).mask.any()


def test_layers_that_a_packed_row_cannot_go_through_take_the_plain_path(small):
    captioner = build(small("gemma3"))
    model = captioner.parts()[0]
    captioner.path.remove()
    before = model.config.text_config._attn_implementation
    model.config.text_config.layer_types = ["sliding_attention", "chunked_attention"]
    again = Captioner(captioner.model, captioner.encoder, captioner.family)
    assert isinstance(again.path, PlainPath)
    assert again.plain_because is not None
    assert "layers of the kind chunked_attention" in again.plain_because
    assert model.config.text_config._attn_implementation == before == "sdpa"


def test_the_plain_path_leaves_transformers_own_attention(small):
    captioner = build(small("gemma3"))
    config = captioner.parts()[0].config.text_config
    path = captioner.path
    assert isinstance(path, SharedPrefixPath)
    assert config._attn_implementation == "racro_shared_prefix"
    with path.switched_off():
        assert config._attn_implementation == "sdpa"
    assert config._attn_implementation == "racro_shared_prefix"
    captioner.use_plain_path("for this test")
    assert config._attn_implementation == "sdpa"


def test_sharded_weights_are_not_trained_on_the_plain_path(small):
    captioner = build(small("vipllava"))
    with pytest.raises(RacroError, match=r"sharded weights need the shared-prefix path.*'vipllava'.*use the ddp"):
        captioner.shard(torch.device("cpu"), None, None)


@pytest.mark.parametrize("kind", ["qwen2", "t5"])
def test_a_model_that_takes_no_images_is_refused(kind, tmp_path):
    import transformers

    transformers.AutoConfig.for_model(kind).save_pretrained(tmp_path)
    small_tokenizer().save_pretrained(tmp_path)
    settings = PolicySettings(path=str(tmp_path))
    with pytest.raises(RacroError, match=f"model type '{kind}' is not a captioner; expected a decoder-only model"):
        policy_family(settings)
    with pytest.raises(RacroError):
        load_captioner(settings, torch.device("cpu"))
