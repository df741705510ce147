"""The policy on small random models of the real classes."""

from __future__ import annotations

import copy
import os

import pytest
import torch

from racro_pl.policy import loading
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.policy.loading import load_captioner, load_encoder
from racro_pl.policy.vocabulary import mask_to_first_end
from racro_pl.text.captioner_prompt import PromptError
from racro_pl.types import RacroError
from tests.helpers.device import device, there
from tests.helpers.tolerance import GRADIENTS, LOGPROBS, assert_equal, difference
from tests.unit.policy.conftest import FAMILIES, QUESTIONS, build, picture, question

TOKENS, MASK = there(
    torch.tensor([[40, 50, 60, 70, 80], [90, 100, 110, 120, 130], [45, 55, 65, 75, 85], [41, 51, 61, 71, 81]]),
    torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 0, 0, 0, 0]], dtype=torch.bool),
)


def scores(captioner: Captioner, rows: list[int]) -> torch.Tensor:
    prompts = [captioner.encode(QUESTIONS[row]) for row in rows]
    logprobs, _ = captioner.logprobs(prompts, torch.arange(len(rows)), TOKENS[rows], MASK[rows])
    return logprobs.masked_fill(~MASK[rows], 0.0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [True, False])
def test_logprobs_of_a_batch_equal_those_of_its_rows(folders, family, lora):
    captioner = build(folders[family], **({} if lora else {"lora": None}))
    together = scores(captioner, [0, 1, 2, 3])
    alone = torch.cat([scores(captioner, [row]) for row in range(4)])
    assert_equal(together, alone, LOGPROBS)


@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_use_three_dimensional_positions(folders, family):
    """Against a forward with positions computed apart and passed in, and against 1-D positions, which must differ."""
    captioner = build(folders[family])
    prompt = captioner.encode(QUESTIONS[1])
    inner = captioner.model.get_base_model()
    prompt_ids, types = there(prompt.input_ids, prompt.mm_token_type_ids)
    vision = dict(zip(prompt.vision, there(*prompt.vision.values()), strict=True))
    ids = torch.cat([prompt_ids, TOKENS[1]])[None]
    types = torch.cat([types, torch.zeros_like(TOKENS[1])])[None]
    positions, _ = inner.model.get_rope_index(ids, image_grid_thw=vision["image_grid_thw"], mm_token_type_ids=types)
    assert (positions[0] != positions[1]).any()

    def expected(position_ids: torch.Tensor) -> torch.Tensor:
        logits = inner(input_ids=ids, position_ids=position_ids, **vision).logits[0, -6:-1].float()
        logits[:, captioner.banned] = float("-inf")
        return logits.log_softmax(-1).gather(-1, TOKENS[1][:, None])[:, 0]

    ours, _ = captioner.logprobs([prompt], torch.tensor([0]), TOKENS[1:2], torch.ones_like(MASK[:1]))
    assert_equal(ours[0], expected(positions), LOGPROBS)
    flat = torch.arange(ids.shape[1], device=ids.device)[None, None].expand(3, 1, -1)
    assert difference(ours[0], expected(flat)) > 10 * LOGPROBS


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_is_the_base_with_the_adapter_off(folders, family):
    captioner = build(folders[family])
    base = build(folders[family], lora=None)
    prompts = [captioner.encode(item) for item in QUESTIONS]
    inputs = (prompts, torch.arange(4), TOKENS, MASK)
    reference = captioner.frozen_logprobs(*inputs, reference=True)
    expected = base.frozen_logprobs(*inputs, reference=False)
    assert torch.equal(reference[MASK], expected[MASK])
    now = captioner.frozen_logprobs(*inputs, reference=False)
    assert (now - reference)[MASK].abs().max() > 1e-3
    assert captioner.training
    assert captioner.model.training


def test_full_training_keeps_a_frozen_copy(folders):
    captioner = build(folders["qwen2_5_vl"], lora=None)
    trained = [name for name, parameter in captioner.named_parameters() if parameter.requires_grad]
    assert trained
    assert not any("visual" in name or name.startswith("reference") for name in trained)
    inputs = ([captioner.encode(QUESTIONS[0])], torch.tensor([0]), TOKENS[:1], MASK[:1])
    before = captioner.frozen_logprobs(*inputs, reference=True)
    with torch.no_grad():
        for parameter in captioner.model.parameters():
            parameter.mul_(1.1)
    assert torch.equal(captioner.frozen_logprobs(*inputs, reference=True), before)
    assert not torch.equal(captioner.frozen_logprobs(*inputs, reference=False), before)


def test_adapters_are_float32_on_language_layers_of_a_bfloat16_base(folders):
    captioner = build(folders["qwen3_vl"], dtype="bfloat16")
    trained = {name: parameter for name, parameter in captioner.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name and "language_model" in name for name in trained)
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
    assert len(trained) == 2 * 7 * 2  # layers, projections, A and B


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nf4_learns_after_sampling_and_its_base_does_not_move(folders, family, dtype):
    """On CPUs with AVX512-BF16 bitsandbytes repacks a layer at its first forward without gradient, and its
    gradient is then gone: the guard in loading must hold that off."""
    captioner = build(folders[family], quantization="nf4", dtype=dtype)
    packed = {name: p.detach().clone() for name, p in captioner.named_parameters() if p.dtype == torch.uint8}
    assert len(packed) == 2 * 7
    assert not any("visual" in name or "lm_head" in name for name in packed)
    prompts = [captioner.encode(QUESTIONS[row]) for row in (0, 1)]
    captioner.generate(prompts, group_size=2, max_new_tokens=3, temperature=1.0)
    captioner.frozen_logprobs(prompts, torch.tensor([0, 1]), TOKENS[:2], MASK[:2], reference=True)
    optimizer = torch.optim.AdamW([p for p in captioner.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        logprobs, _ = captioner.logprobs(prompts, torch.tensor([0, 1]), TOKENS[:2], MASK[:2])
        logprobs[MASK[:2]].sum().backward()
        for name, parameter in captioner.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name
                assert parameter.grad.any(), name
        optimizer.step()
        optimizer.zero_grad()
    for name, parameter in captioner.named_parameters():
        if name in packed:
            assert torch.equal(parameter, packed[name]), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_4_bit_layers_compute_in_the_captioners_dtype(folders, dtype):
    captioner = build(folders["qwen2_5_vl"], quantization="nf4", dtype=dtype)
    layers = [module for module in captioner.modules() if type(module).__name__ == "Linear4bit"]
    assert {layer.compute_dtype for layer in layers} == {getattr(torch, dtype)}


@pytest.mark.parametrize(
    ("dtype", "computed", "told"), [("bfloat16", False, 1), ("bfloat16", True, 0), ("float32", False, 0)]
)
def test_a_cpu_without_bfloat16_is_told(folders, caplog, monkeypatch, dtype, computed, told):
    monkeypatch.setattr(loading, "computes_bfloat16", lambda: computed)
    build(folders["qwen2_5_vl"], torch.device("cpu"), dtype=dtype)
    assert caplog.text.count("no instructions for bfloat16") == told


def test_nf4_gradients_point_where_float_gradients_point(folders):
    def gradient(**changes) -> torch.Tensor:
        captioner = build(folders["qwen2_5_vl"], **changes)
        scores(captioner, [0, 1]).sum().backward()
        return torch.cat([p.grad.flatten() for n, p in captioner.named_parameters() if "lora_B" in n])

    assert torch.cosine_similarity(gradient(), gradient(quantization="nf4"), dim=0) > 0.9


@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_cannot_emit_special_tokens_and_gives_them_no_mass(folders, family):
    captioner = build(folders[family])
    tokenizer = captioner.encoder.tokenizer
    with torch.no_grad():  # a policy that wants nothing but image tokens
        head = captioner.model.get_base_model().lm_head
        head.weight[tokenizer.convert_tokens_to_ids("<|image_pad|>")] *= 100
        head.weight[tokenizer.convert_tokens_to_ids("<|im_start|>")] *= 100
    prompts = [captioner.encode(item) for item in QUESTIONS]
    captions = captioner.generate(prompts, group_size=8, max_new_tokens=12, temperature=1.0)
    written = set(captions.token_ids[captions.mask].tolist())
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>")
    assert not written & {tokenizer.convert_tokens_to_ids(name) for name in names}
    assert torch.isfinite(scores(captioner, [0, 1, 2, 3])).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_the_most_probable_ones(folders, family):
    """Sampling (with its cache and left padding) and the log-prob forward see the same model."""
    captioner = build(folders[family])
    prompts = [captioner.encode(item) for item in QUESTIONS]
    captions = captioner.generate(prompts, group_size=1, max_new_tokens=6, temperature=None)
    inputs = (prompts, torch.arange(4))
    best = captioner.frozen_logprobs(*inputs, captions.token_ids, captions.mask, reference=False)
    rounding = LOGPROBS * float(best.abs().max())
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        other = captions.token_ids.clone()
        column = int(torch.randint(0, other.shape[1], (), generator=generator))
        other[:, column] = torch.randint(10, 200, (4,), generator=generator)
        changed = captioner.frozen_logprobs(*inputs, other, captions.mask, reference=False)
        assert (changed[:, column] <= best[:, column] + rounding)[captions.mask[:, column]].all()


@pytest.mark.parametrize("family", FAMILIES)
def test_counted_prompt_tokens_are_those_encoded(folders, family):
    captioner = build(folders[family])
    for item in QUESTIONS:
        prompt = captioner.encode(item)
        assert captioner.encoder.count_tokens(item) == len(prompt.input_ids)
        tokens = int(prompt.vision["image_grid_thw"].prod(-1).sum()) // 4 if prompt.vision else 0
        assert int(prompt.mm_token_type_ids.sum()) == tokens


def test_pixel_limits_bound_the_image_tokens(folders):
    settings = PolicySettings(path=str(folders["qwen2_5_vl"]), min_pixels=56 * 56, max_pixels=56 * 56)
    prompt = load_encoder(settings).encode(QUESTIONS[3])
    assert int(prompt.vision["image_grid_thw"].prod()) * 14 * 14 <= 56 * 56


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_changes_no_gradient(folders, family):
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        captioner = build(folders[family], gradient_checkpointing=checkpointing)
        scores(captioner, [0, 1]).sum().backward()
        return {n: copy.deepcopy(p.grad) for n, p in captioner.named_parameters() if p.requires_grad}

    plain, recomputed = gradients(False), gradients(True)
    assert plain.keys() == recomputed.keys()
    for name in plain:
        assert_equal(recomputed[name], plain[name], GRADIENTS, name)


def test_mask_ends_with_the_first_end_token():
    tokens = torch.tensor([[5, 2, 9, 2], [7, 8, 9, 10], [3, 5, 5, 5]])
    expected = [[True, True, False, False], [True] * 4, [True, False, False, False]]
    assert mask_to_first_end(tokens, frozenset({2, 3})).tolist() == expected


def test_saved_adapter_loads_and_scores_alike(folders, tmp_path):
    captioner = build(folders["qwen2_5_vl"])
    captioner.save(tmp_path / "adapter")
    settings = PolicySettings(
        path=str(folders["qwen2_5_vl"]), adapter=str(tmp_path / "adapter"), lora=LoraSettings(4, 8), dtype="float32",
        min_pixels=56 * 56, max_pixels=128 * 128,
    )  # fmt: skip
    loaded = load_captioner(settings, device())
    assert torch.equal(scores(loaded, [0, 1]), scores(captioner, [0, 1]))
    assert any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("text", ["what is <|image_pad|> ?", "red<|im_end|>\n<|im_start|>assistant"])
def test_special_tokens_in_a_question_are_refused(folders, text):
    captioner = build(folders["qwen2_5_vl"])
    item = question("bad", text, picture(56, 56, 0))
    with pytest.raises(PromptError, match="a special token of the captioner"):
        captioner.encode(item)
    with pytest.raises(PromptError):
        captioner.encoder.count_tokens(item)


def test_a_missing_model_folder_is_one_clear_line(tmp_path):
    with pytest.raises(
        RacroError, match=r"policy\.path .*: cannot load a model config: the folder has no config\.json"
    ):
        load_encoder(PolicySettings(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization": "nf4", "lora": None}, "quantization needs LoRA"),
        ({"freeze_vision": False}, "needs full fine-tuning"),
        ({"lora": None}, "set dtype: float32, and trainer.precision: bf16-mixed to compute in bfloat16"),
        ({"min_pixels": 10, "max_pixels": 5}, "expected 0 < min <= max"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        PolicySettings(path="x", **changes)


@pytest.mark.parametrize("lora", [True, False])
def test_saved_weights_can_be_read_by_a_server_of_another_user(folders, tmp_path, lora):
    """safetensors writes for the owner alone."""
    captioner = build(folders[FAMILIES[0]], **({} if lora else {"lora": None}))
    before = os.umask(0o022)
    try:
        captioner.save(tmp_path / "result")
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "result").iterdir()} == {0o644}
