"""LoRA layers in fewer operations compute what peft's own do, and adapters are switched as peft switches them."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from racro_pl.policy.adapters import START, TRAINED, switched
from racro_pl.policy.lora import FusedLinear, fuse
from racro_pl.policy.structure import in_eval_mode
from tests.helpers.device import device
from tests.unit.policy.conftest import FAMILIES, build
from tests.unit.policy.test_partial_attention import Operations

WIDTH, OUT, RANK = 24, 40, 4
SHAPES = [(1, 7, WIDTH), (5, WIDTH), (2, 3, 2, WIDTH), (0, WIDTH), (WIDTH,)]


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain, self.biased = nn.Linear(WIDTH, OUT, bias=False), nn.Linear(WIDTH, OUT)
        self.table = nn.Embedding(9, WIDTH)


def adapted(base: nn.Module | None = None, **changes: Any) -> Any:
    torch.manual_seed(0)
    settings = {"r": RANK, "lora_alpha": 10, "target_modules": ["plain", "biased"]} | changes
    model = get_peft_model((base or Layers()).requires_grad_(False), LoraConfig(**settings), adapter_name=TRAINED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.2)
    return model.to(device())


def four_bit() -> nn.Module:
    from bitsandbytes.nn import Linear4bit

    torch.manual_seed(1)
    layers = Layers()
    layers.is_loaded_in_4bit = True  # peft asks
    for name in ("plain", "biased"):
        ordinary = getattr(layers, name)
        layer = Linear4bit(WIDTH, OUT, bias=ordinary.bias is not None, quant_type="nf4", compute_dtype=torch.float32)
        layer.load_state_dict(ordinary.state_dict())
        layer.support_avx512bf16_for_cpu = False
        setattr(layers, name, layer)
    return layers.to(device())


def result_of(layer: Any, x: Tensor, precision: Any) -> list[Tensor]:
    """Output, and gradients of the input and the adapter."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    with precision:
        out = layer(x)
    weights = torch.arange(1.0, out.numel() + 1, device=out.device).view(out.shape) / max(1, out.numel())
    (out.float() * weights).sum().backward()
    grads = [layer.lora_A[TRAINED].weight.grad, layer.lora_B[TRAINED].weight.grad]
    return [out.detach(), x.grad, *grads]


def autocast() -> Any:
    return torch.autocast(device().type, torch.bfloat16)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["plain", "biased"])
@pytest.mark.parametrize(
    ("base", "dtype", "precision", "bound"),
    [
        (Layers, torch.float32, nullcontext, 1e-5),
        (Layers, torch.bfloat16, nullcontext, 2e-2),
        (Layers, torch.float32, autocast, 4e-2),
        (Layers, torch.bfloat16, autocast, 4e-2),
        (four_bit, torch.float32, nullcontext, 1e-5),
        (four_bit, torch.bfloat16, autocast, 4e-2),
    ],
    ids=["float32", "bfloat16 base", "autocast", "bfloat16 autocast", "nf4", "nf4 autocast"],
)
def test_a_fused_layer_computes_what_pefts_does(base, dtype, precision, bound, kind, shape):
    own = adapted(base())
    if base is Layers:
        for layer in own.modules():
            if isinstance(layer, Linear):
                layer.base_layer.to(dtype)
    fused = deepcopy(own)
    fuse(fused)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(device(), dtype)
    expected = result_of(getattr(own.base_model.model, kind), x, precision())
    layer = getattr(fused.base_model.model, kind)
    assert "Fused" in type(layer).__name__
    found = result_of(layer, x, precision())
    for mine, other in zip(found, expected, strict=True):
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
        scale = float(other.abs().max()) if other.numel() else 1.0
        torch.testing.assert_close(mine.float(), other.float(), atol=bound * scale, rtol=0)
    with torch.no_grad(), precision():
        torch.testing.assert_close(layer(x), found[0], atol=bound, rtol=0)


def test_the_input_and_the_frozen_weights_are_left_as_they_are():
    model = adapted()
    fuse(model)
    layer = model.base_model.model.plain
    x = torch.randn(3, WIDTH, device=device())
    before, weight = x.clone(), layer.base_layer.weight.clone()
    with torch.no_grad():
        layer(x), layer(x)
    assert torch.equal(x, before)
    assert torch.equal(layer.base_layer.weight, weight)


@pytest.mark.parametrize(
    "changes", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}, {"target_modules": ["table"]}], ids=str
)
def test_layers_of_another_kind_keep_pefts_forward(changes):
    model = adapted(**changes)
    kinds = [type(module) for module in model.modules()]
    fuse(model)
    assert [type(module) for module in model.modules()] == kinds


def test_an_adapter_that_is_merged_counts_once():
    model = adapted()
    fuse(model)
    layer, x = model.base_model.model.biased, torch.randn(3, WIDTH, device=device())
    expected = layer(x)
    model.merge_adapter()
    torch.testing.assert_close(layer(x), expected)
    model.unmerge_adapter()
    torch.testing.assert_close(layer(x), expected)


def test_subclasses_of_linear_keep_pefts_forward():
    """What they do to their input is theirs."""

    class Own(nn.Linear):
        pass

    base = Layers()
    base.plain = Own(WIDTH, OUT, bias=False)
    model = adapted(base)
    fuse(model)
    layers = model.base_model.model
    assert type(layers.plain) is Linear
    assert type(layers.biased) is FusedLinear


def test_a_second_adapter_is_put_on_a_fused_layer_as_on_another():
    model = adapted()
    fuse(model)
    model.add_adapter(START, model.peft_config[TRAINED])
    assert set(model.base_model.model.plain.lora_A) == {TRAINED, START}


@pytest.mark.parametrize(
    ("base", "dtype", "gradients", "most"),
    [
        (Layers, torch.float32, False, 3),
        (Layers, torch.float32, True, 3),
        (Layers, torch.bfloat16, False, 5),
        (Layers, torch.bfloat16, True, 6),
        (four_bit, torch.bfloat16, False, 5),
        (four_bit, torch.bfloat16, True, 6),
    ],
)
def test_a_fused_layer_takes_few_operations(base, dtype, gradients, most):
    """On GPUs a pass waits for launches. Adapters stay in float32. docs/performance.md states these numbers."""
    model = adapted(base())
    fuse(model)
    layer = model.base_model.model.plain
    if base is four_bit:
        layer.base_layer.compute_dtype = dtype
    else:
        layer.base_layer.to(dtype)
    x = torch.randn(1, 3, WIDTH, device=device()).to(dtype).requires_grad_(gradients)
    with torch.set_grad_enabled(gradients), Operations() as counted:
        layer(x)
    assert len(counted.names) == most, counted.names


def bfloat16_base() -> Any:
    """Two fused layers of one width, and a function that has both read one tensor, as q and k do."""
    model = adapted()
    for layer in model.modules():
        if isinstance(layer, Linear):
            layer.base_layer.to(torch.bfloat16)
    layers = model.base_model.model
    return model, lambda x: layers.plain(x) + 2 * layers.biased(x)


def test_layers_that_read_one_tensor_cast_it_once():
    model, both = bfloat16_base()
    fuse(model)
    x = torch.randn(2, 3, WIDTH, device=device()).to(torch.bfloat16)
    with torch.no_grad(), Operations() as counted:
        first = both(x)
    assert counted.names.count("aten._to_copy.default") == 1
    with torch.no_grad():
        x.mul_(2.0)
        assert not torch.allclose(both(x), first)  # it is another one now
        torch.testing.assert_close(both(x), both(x.clone()))
    seen = weakref.ref(x)
    del x
    assert seen() is None


def test_a_cast_made_without_gradients_is_not_used_with_them():
    """And the gradient that both layers send back through one cast is the sum of what peft's own send."""
    model, both = bfloat16_base()
    start = torch.randn(2, 3, WIDTH, device=device()).to(torch.bfloat16).requires_grad_()
    (both(start * 1.0).float() ** 2).sum().backward()
    expected, start.grad = start.grad, None
    fuse(model)
    x = start * 1.0
    with torch.no_grad():
        both(x)
    seen = weakref.ref(x)
    (both(x).float() ** 2).sum().backward()
    scale = float(expected.abs().max())
    torch.testing.assert_close(start.grad.float(), expected.float(), atol=2e-2 * scale, rtol=0)
    del x
    assert seen() is None


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_all_adapters_of_a_captioner_are_fused(folders, family, quantization):
    captioner = build(folders[family], quantization=quantization)
    kinds = {type(module).__name__ for module in captioner.modules() if isinstance(module, BaseTunerLayer)}
    assert kinds == {"FusedLinear4bit" if quantization == "nf4" else "FusedLinear"}


def test_adapters_are_switched_as_peft_does_it():
    model = adapted()
    model.add_adapter(START, model.peft_config[TRAINED])
    fuse(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if f"lora_B.{START}" in name:
                parameter.normal_(0.0, 0.2)
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    layer, x = model.base_model.model.biased, torch.randn(3, WIDTH, device=device())
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    own = layer(x)
    with model.disable_adapter():
        bare = layer(x)
    model.set_adapter(START, inference_mode=True)
    start = layer(x)
    model.set_adapter(TRAINED)
    assert not torch.equal(own, start)
    assert not torch.equal(own, bare)

    with torch.no_grad():
        for adapter, expected in ((None, bare), (START, start), (TRAINED, own)):
            with switched(layers, adapter):
                assert torch.equal(layer(x), expected)
        with pytest.raises(ValueError, match="midway"), switched(layers, None), switched(layers, START):
            raise ValueError("midway")
        assert torch.equal(layer(x), own)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trained


def test_eval_mode_is_left_as_it_was_entered():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2)))
    model[1].eval()
    modules = list(model.modules())
    before = [module.training for module in modules]
    assert set(before) == {True, False}
    with in_eval_mode(modules):
        assert not any(module.training for module in modules)
    assert [module.training for module in modules] == before
    with pytest.raises(ValueError, match="midway"), in_eval_mode(modules):
        raise ValueError("midway")
    assert [module.training for module in modules] == before
