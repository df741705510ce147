"""peft's LoRA layers in fewer operations.

A layer computes ``W x + s B A x``. peft takes four to seven operations for the second summand, most of them over all of
the layer's output; here it takes two (all in one dtype) to five (where dtypes differ, with gradients), and what is
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
            read = _in_dtype(x, down.dtype).reshape(flat.shape)
            result = _add(result, read, down, up, self.scaling[name])
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
    inner = F.linear(x, down)
    if inner.dtype == result.dtype:
        return result.addmm_(inner, up.to(inner.dtype).t(), alpha=scaling)
    if torch.is_grad_enabled():
        return result.add_(F.linear(inner * scaling, up))  # so that the backward pass scales r columns, not all
    return result.add_(F.linear(inner, up), alpha=scaling)


def _in_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` in the adapter's dtype; made once where several layers read one tensor (q, k and v; gate and up).

    It lives as long as ``x`` does. Under autocast the products choose their dtype themselves.
    """
    if x.dtype == dtype or torch.is_autocast_enabled(x.device.type):
        return x
    if x.is_leaf and x.requires_grad:  # the gradient of a leaf holds it: it would never go
        return x.to(dtype)
    state = (dtype, torch.is_grad_enabled(), 0 if x.is_inference() else x._version)
    kept = getattr(x, "_racro_cast", None)
    if kept is None or kept[0] != state:
        kept = (state, x.to(dtype))
        x._racro_cast = kept  # type: ignore[attr-defined]
    return kept[1]


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
            return result.clone() if result._is_view() else result  # a view of a custom gradient cannot be written over

    return {(Linear4bit, bitsandbytes.nn.Linear4bit): FusedLinear4bit}
