"""Packed equals repeated: log-probs, entropies, loss and every gradient, against the plain way in tests/fakes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from racro_pl.losses import VARIANTS, grpo_loss
from racro_pl.policy import attention
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import LoraSettings
from racro_pl.types import RacroError
from tests.fakes.plain import plain_logprobs
from tests.helpers.device import device, there
from tests.helpers.tolerance import GRADIENTS, LOGPROBS, NF4, assert_equal, difference
from tests.unit.policy.conftest import FAMILIES, QUESTIONS, build, picture, question

LENGTHS = torch.tensor([7, 1, 4, 2, 7, 3, 1, 1, 5, 6])
GROUP = torch.tensor([2, 0, 0, 3, 1, 1, 3, 3, 0, 2])  # groups of 3, 2, 2 and 3 captions, in no order


def captions(seed: int = 0) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(10, 200, (10, 7), generator=torch.Generator().manual_seed(seed))
    return there(tokens, torch.arange(7) < LENGTHS[:, None])


def loss_and_gradients(
    captioner: Captioner, logprobs: Tensor, around: Tensor, mask: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The GRPO loss with advantages, and old and reference log-probs near ``around``, so that every term is in it."""
    draw = torch.Generator().manual_seed(5)
    noise = there(*(size * torch.randn(mask.shape, generator=draw) for size in (0.3, 0.5)))
    old, reference = (around.detach() + part for part in noise)
    (advantages,) = there(torch.randn(len(mask), generator=draw))
    variant = replace(VARIANTS["grpo"], kl_coefficient=0.1)
    out = grpo_loss(logprobs, old, reference, advantages, mask, variant=variant)
    captioner.zero_grad()
    out.loss.backward()
    return out.loss.detach(), {n: p.grad.clone() for n, p in captioner.named_parameters() if p.grad is not None}


ADAPTATIONS = {
    "lora": {},
    "lora-checkpointing": {"gradient_checkpointing": True},
    "full": {"lora": None},
    "full-vision": {"lora": None, "freeze_vision": False},
    "nf4": {"quantization": "nf4"},
    "nf4-checkpointing": {"quantization": "nf4", "gradient_checkpointing": True},
    "nf4-bfloat16": {"quantization": "nf4", "dtype": "bfloat16"},
}


@pytest.fixture
def exact_scores(request):
    """On a card packed and repeated rows take other 16-bit kernels, of which some round scores and some do not."""
    in_16_bits = "bfloat16" in request.node.callspec.params.get("adaptation", "bfloat16")
    with sdpa_kernel(SDPBackend.MATH) if in_16_bits and device().type == "cuda" else nullcontext():
        yield


@pytest.mark.usefixtures("exact_scores")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_packed_equals_repeated(folders, family, adaptation):
    captioner = build(folders[family], **({"gradient_checkpointing": False} | ADAPTATIONS[adaptation]))
    limit = NF4 if "bfloat16" in adaptation else LOGPROBS
    prompts = [captioner.encode(item) for item in QUESTIONS]
    tokens, mask = captions()
    expected, expected_entropy = plain_logprobs(captioner, prompts, GROUP, tokens, mask, 0.7)
    expected_loss, expected_gradients = loss_and_gradients(captioner, expected, expected, mask)
    found, entropy = captioner.logprobs(prompts, GROUP, tokens, mask, 0.7)
    loss, gradients = loss_and_gradients(captioner, found, expected, mask)
    assert_equal(found[mask], expected[mask], limit, "log-prob")
    assert_equal(entropy[mask], expected_entropy[mask], limit, "entropy")
    assert not found[~mask].any()
    assert_equal(loss, expected_loss, limit, "loss")
    assert gradients.keys() == expected_gradients.keys()
    assert any("visual" in name for name in gradients) == (adaptation == "full-vision")
    for name, gradient in gradients.items():
        # Errors of bfloat16 add up over layers; a gradient must still point the same way.
        if "bfloat16" in adaptation:
            assert torch.cosine_similarity(gradient.flatten(), expected_gradients[name].flatten(), dim=0) > 0.99, name
        else:
            assert_equal(gradient, expected_gradients[name], GRADIENTS, name)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adaptation", ["lora", "full", "nf4", "nf4-bfloat16"])
def test_reference_and_old_logprobs_equal_the_plain_ones(folders, family, adaptation):
    captioner = build(folders[family], **ADAPTATIONS[adaptation])
    lora, limit = adaptation != "full", NF4 if "bfloat16" in adaptation else LOGPROBS
    if not lora:  # the reference must differ from the policy
        with torch.no_grad():
            captioner.model.lm_head.weight.mul_(1.5)
    prompts = [captioner.encode(item) for item in QUESTIONS]
    tokens, mask = captions()
    inputs = (prompts, GROUP, tokens, mask)
    reference = captioner.frozen_logprobs(*inputs, reference=True)
    with torch.no_grad():
        if lora:
            with captioner.model.disable_adapter():
                expected, _ = plain_logprobs(captioner, *inputs)
        else:
            expected, _ = plain_logprobs(captioner, *inputs, reference=True)
        old, _ = plain_logprobs(captioner, *inputs)
    assert_equal(reference[mask], expected[mask], limit)
    assert_equal(captioner.frozen_logprobs(*inputs, reference=False)[mask], old[mask], limit)
    assert difference(old[mask], expected[mask]) > 2 * limit


@pytest.mark.parametrize("family", FAMILIES)
def test_a_group_split_over_micro_batches_sums_to_the_same_gradient(folders, family):
    captioner = build(folders[family])
    prompts = [captioner.encode(item) for item in QUESTIONS]
    tokens, mask = captions()
    captioner.logprobs(prompts, GROUP, tokens, mask)[0].sum().backward()
    whole = {n: p.grad.clone() for n, p in captioner.named_parameters() if p.requires_grad}
    captioner.zero_grad()
    for rows in torch.arange(10).split(3):
        captioner.logprobs(prompts, GROUP[rows], tokens[rows], mask[rows])[0].sum().backward()
    for name, parameter in captioner.named_parameters():
        if parameter.requires_grad:
            assert_equal(parameter.grad, whole[name], GRADIENTS, name)


@pytest.mark.usefixtures("exact_scores")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointing", [True, False])
def test_bfloat16_packed_is_as_close_to_float32_as_repeated(folders, family, checkpointing):
    """bfloat16 rounds at every layer, so packed and repeated may differ: by no more than both differ from float32."""
    exact = build(folders[family])
    rounded = build(folders[family], dtype="bfloat16", gradient_checkpointing=checkpointing)
    rounded.load_state_dict({n: p for n, p in exact.state_dict().items() if "lora_" in n}, strict=False)
    prompts = [exact.encode(item) for item in QUESTIONS]
    tokens, mask = captions()
    inputs = (prompts, GROUP, tokens, mask)
    truth = plain_logprobs(exact, *inputs)[0]
    found = {}
    for name, captioner, logprobs in (
        ("truth", exact, truth),
        ("repeated", rounded, plain_logprobs(rounded, *inputs)[0]),
        ("packed", rounded, rounded.logprobs(*inputs)[0]),
    ):
        _, gradients = loss_and_gradients(captioner, logprobs, truth, mask)
        found[name] = logprobs.detach()[mask], torch.cat([g.flatten() for g in gradients.values()])

    def error(name: str, part: int) -> Tensor:
        return (found[name][part] - found["truth"][part]).square().mean()

    for part in (0, 1):  # log-probs, gradients
        assert error("packed", part) < 2 * error("repeated", part)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_prompt_token_is_forwarded_once(folders, family):
    captioner = build(folders[family])
    prompts = [captioner.encode(item) for item in QUESTIONS]
    tokens, mask = captions()
    seen = []
    language = captioner.model.get_base_model().model.language_model
    language.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:2].numel()))
    captioner.frozen_logprobs(prompts, GROUP, tokens, mask, reference=False)
    # A caption's last token predicts nothing: 37 tokens in 10 captions are 27 forwarded.
    assert seen == [sum(len(prompt.input_ids) for prompt in prompts) + 37 - 10]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_is_seen_once_in_a_step_and_forgotten_after_it(folders, family):
    captioner = build(folders[family])
    prompts = [captioner.encode(item) for item in QUESTIONS]
    tokens, mask = captions()
    passes = []
    tower = captioner.model.get_submodule("base_model.model.model.visual")
    tower.register_forward_hook(lambda *_: passes.append(1))
    fresh, _ = captioner.logprobs(prompts, GROUP, tokens, mask)
    assert len(passes) == 1  # one for the images of all prompts
    with captioner.cache_image_features():
        captioner.generate(prompts[:2], group_size=2, max_new_tokens=2, temperature=1.0)
        assert len(passes) == 2
        captioner.generate(prompts[2:], group_size=2, max_new_tokens=2, temperature=1.0)
        assert len(passes) == 3
        captioner.frozen_logprobs(prompts, GROUP, tokens, mask, reference=True)
        kept, _ = captioner.logprobs(prompts, GROUP, tokens, mask)
        captioner.logprobs(prompts[:1], torch.zeros(1, dtype=torch.long), tokens[:1], mask[:1])
        assert len(passes) == 3
    assert_equal(kept[mask], fresh[mask], LOGPROBS)
    captioner.logprobs(prompts, GROUP, tokens, mask)
    assert len(passes) == 4


def test_a_tower_that_is_trained_looks_anew(folders):
    captioner = build(folders["qwen2_5_vl"], lora=None, freeze_vision=False)
    prompts = [captioner.encode(QUESTIONS[0])]
    tokens, mask = captions()
    inputs = (prompts, torch.zeros(1, dtype=torch.long), tokens[:1], mask[:1])
    with captioner.cache_image_features():
        before = captioner.frozen_logprobs(*inputs, reference=False)
        reference = captioner.frozen_logprobs(*inputs, reference=True)
        with torch.no_grad():
            for parameter in captioner.model.model.visual.parameters():
                parameter.mul_(1.5)
        assert difference(captioner.frozen_logprobs(*inputs, reference=False), before) > 10 * LOGPROBS
        assert torch.equal(captioner.frozen_logprobs(*inputs, reference=True), reference)


def test_prompts_without_any_image_need_no_tower(folders):
    captioner = build(folders["qwen3_vl"])
    prompts = [captioner.encode(QUESTIONS[2]), captioner.encode(question("short", "what ?"))]
    tokens, mask = captions()
    rows = torch.tensor([0, 1, 1])
    found, _ = captioner.logprobs(prompts, rows, tokens[:3], mask[:3])
    expected, _ = plain_logprobs(captioner, prompts, rows, tokens[:3], mask[:3])
    assert_equal(found[mask[:3]], expected[mask[:3]], LOGPROBS)


def test_layers_of_an_unknown_kind_are_refused(folders):
    captioner = build(folders["qwen2_5_vl"], lora=None)
    captioner.model.config.text_config.layer_types = ["full_attention", "chunked_attention"]
    with pytest.raises(RacroError, match=r"layers of the kind chunked_attention.*known are full_attention, sliding"):
        attention.install(captioner.model)


@pytest.mark.parametrize("option", ["softcap", "s_aux", "position_bias"])
def test_what_may_change_scores_is_refused_by_name(option):
    def attend(*_: object) -> Tensor:
        raise AssertionError("asked to attend")

    states = torch.zeros(3, 1, 2, 4, 8)
    with pytest.raises(RacroError, match=f"Linear attends with {option}, which"):
        attention.attention(
            torch.nn.Linear(1, 1), *states, None, scaling=1.0, shared_prefix=attend, dropout=0.0, **{option: 5.0}
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_deeper_group_of_one_image_and_of_many(folders, family):
    """More captions than a prompt has tokens, and a prompt of three images."""
    captioner = build(folders[family], lora=LoraSettings(rank=2, alpha=8))
    three = question("three", "<image> and <image> and <image> ?", *(picture(60, 60 + 8 * i, i) for i in range(3)))
    prompts = [captioner.encode(three), captioner.encode(QUESTIONS[0])]
    rows = torch.arange(24) % 2
    tokens = torch.randint(10, 200, (24, 5), generator=torch.Generator().manual_seed(1))
    tokens, mask = there(tokens, torch.arange(5) < torch.arange(24)[:, None] % 5 + 1)
    expected, _ = plain_logprobs(captioner, prompts, rows, tokens, mask)
    found, _ = captioner.logprobs(prompts, rows, tokens, mask)
    assert_equal(found[mask], expected[mask], LOGPROBS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_prompts_get_the_sum_of_their_captions_gradients(dtype):
    """In whatever order the captions stand, and where a prompt has none."""
    prompts, group = torch.randn(3, 2, 5, 4, device=device()), torch.tensor([2, 0, 2, 2, 0], device=device())
    gradient = torch.randn(5, 2, 5, 4, device=device()).to(dtype)
    found, expected = (prompts.detach().clone().to(dtype).requires_grad_() for _ in range(2))
    attention._OfGroup.apply(found, group).backward(gradient)
    expected.index_select(0, group).backward(gradient)
    torch.testing.assert_close(found.grad, expected.grad)
