"""peft's LoRA layers in fewer operations.

A layer computes ``W x + s B A x``. peft takes four to seven operations for the second summand, most of them over all of
the layer's output; here it takes two (all in one dtype) to six (4-bit weights in bfloat16, with gradients), and what is
added is written over the first summand.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from peft.tuners.lora.layer import Linear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn


class _Fused:
    """What takes the place of a LoRA layer's own ``forward``: one adapter, without bias, dropout or variants."""

    def forward(self: Any, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        if self.merged:
            return super().forward(x)  # type: ignore[misc]
        # Flat first, so that the result is no view: writing into one costs copies in the backward pass.
        flat = x.reshape(-1, x.shape[-1])
        result = self._frozen(flat)
        if not self.disable_adapters:
            (name,) = self.active_adapters
            down, up = self.lora_A[name].weight, self.lora_B[name].weight
            result = _add(result, flat, down, up, self.scaling[name])
        return result.view(*x.shape[:-1], result.shape[-1])

    def _frozen(self: Any, x: Float[Tensor, "n in"]) -> Float[Tensor, "n out"]:
        return self.base_layer(x)


class FusedLinear(_Fused, Linear):
    """On an ordinary linear layer."""


def fuse(model: nn.Module) -> None:
    """Let the LoRA layers of a PEFT model compute as above; those of other kinds keep peft's ``forward``."""
    kinds = {(Linear, nn.Linear): FusedLinear} | _four_bit()
    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and _is_plain(module):
            fused = kinds.get((type(module), type(module.base_layer)))
            if fused is not None:
                module.__class__ = fused


def _add(
    result: Float[Tensor, "n out"],
    x: Float[Tensor, "n in"],
    down: Float[Tensor, "r in"],
    up: Float[Tensor, "out r"],
    scaling: float,
) -> Float[Tensor, "n out"]:
    """``result + scaling * x @ down.T @ up.T``, written over ``result``."""
    if not torch.is_autocast_enabled(x.device.type):
        x = x.to(down.dtype)
    inner = F.linear(x, down)
    if inner.dtype == result.dtype:
        return result.addmm_(inner, up.to(inner.dtype).t(), alpha=scaling)
    if torch.is_grad_enabled():
        return result.add_(F.linear(inner * scaling, up))  # so that the backward pass scales r columns, not all
    return result.add_(F.linear(inner, up), alpha=scaling)


def _is_plain(layer: Any) -> bool:
    if not hasattr(layer, "lora_B"):
        return False
    bias = any(up.bias is not None for up in layer.lora_B.values())
    dropout = any(not isinstance(part, nn.Identity) for part in layer.lora_dropout.values())
    return not (bias or dropout or layer.lora_variant)


@cache
def _four_bit() -> dict[Any, Any]:
    from peft.import_utils import is_bnb_4bit_available

    if not is_bnb_4bit_available():
        return {}
    import bitsandbytes
    from peft.tuners.lora.bnb import Linear4bit

    class FusedLinear4bit(_Fused, Linear4bit):
        """On a 4-bit layer."""

        def _frozen(self, x: Tensor) -> Tensor:
            result = self.base_layer(x)
            # peft does so too: whether gradients pass a written-over result depends on the kernel.
            return result.clone() if torch.is_grad_enabled() else result

    return {(Linear4bit, bitsandbytes.nn.Linear4bit): FusedLinear4bit}
