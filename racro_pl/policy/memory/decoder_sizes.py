"""Sizes of a decoder's layers that its config does not say, or says otherwise; the model is on the meta device."""

from __future__ import annotations

from collections import Counter
from typing import Any

from racro_pl.policy.structure import decoder_of, expert_names, linear_names


def most_norms(model: Any) -> int:
    """Norms over the hidden size in one layer."""
    h = model.config.get_text_config().hidden_size

    def norms(layer: Any) -> int:
        sizes = {name: weight.shape for name, weight in layer.named_parameters()}
        return sum(size == (h,) for name, size in sizes.items() if name.endswith("norm.weight") or "layernorm" in name)

    return max(map(norms, decoder_of(model).layers))


def widest_mlp(model: Any) -> int:
    """Width inside the widest MLP of linear layers: some models round up what their config says (LFM2)."""
    h = model.config.get_text_config().hidden_size
    layers = [model.get_submodule(name) for name in linear_names(model) if "attn" not in name]
    return max((layer.in_features for layer in layers if layer.out_features == h), default=0)


def widest_experts(model: Any) -> int:
    """Numbers in the stacked experts of one layer; 0 where there are none."""
    layers: Counter[str] = Counter()
    for name in expert_names(model):
        layers[name.rpartition(".")[0]] += model.get_parameter(name).numel()
    return max(layers.values(), default=0)
