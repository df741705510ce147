"""How many bytes layers of linear attention take (Gated DeltaNet: Qwen3.5, MiniCPM-V 4.6), from the config's shapes.

transformers' torch kernel computes in float32, in chunks of 64 tokens per sequence; the factors below count its tensors
and are fitted to ones that were counted (``tests/unit/policy/test_ledger.py`` holds them). GPU kernels take less.
Short convolutions take less than an attention layer, as which they are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FLOAT32 = 4
CHUNK = 64
"""Tokens of a chunk: prompts and captions are padded to whole ones, each apart."""


@dataclass(frozen=True)
class LinearAttention:
    """What the formulas need of these layers."""

    layers: int
    heads: int
    """Of values; keys are repeated to as many."""
    key_heads: int
    key: int
    """Width of a key head (``dk``)."""
    value: int
    """Width of a value head (``dv``)."""
    kernel: int
    """Columns of the convolution before them."""

    @property
    def channels(self) -> int:
        """Of the convolution: queries, keys and values."""
        return 2 * self.key_heads * self.key + self.heads * self.value

    def kept(self, c: int, h: int, tokens: int) -> int:
        """What one layer keeps for its backward pass, beside its MLP.

        Per token, of all ``n`` heads: in float32 eight tensors of ``dk``, three of ``dv``, five of a chunk's tokens,
        and one state of ``dk dv`` per chunk; convolution and projections around them; with adapters, their inputs.
        """
        n, dk, dv = self.heads, self.key, self.value
        rule = FLOAT32 * n * (8 * dk + 3 * dv + 5 * CHUNK + dk * dv // CHUNK)
        around = int(2.5 * c) * self.channels + 18 * n * dv + (14 * n * dk if c == FLOAT32 else 0)
        return tokens * (rule + around + FLOAT32 * h * (1 if c == FLOAT32 else 4))

    def backward(self, c: int, h: int, tokens: int) -> int:
        """Gradients while the layer goes backward: up to three tenths of what it keeps."""
        return 3 * self.kept(c, h, tokens) // 10

    def read(self, c: int, h: int, tokens: int) -> int:
        """Reading prompts, without gradient: the largest tensors of one layer, and the residual stream."""
        n, dk, dv = self.heads, self.key, self.value
        rule = FLOAT32 * n * (5 * dk + 5 * dv + 3 * CHUNK + dk * dv // CHUNK)
        return tokens * (rule + 3 * c * self.channels + 4 * c * h)

    def states(self, c: int, sequences: int) -> int:
        """Of all layers, between tokens: the float32 state of every head, and the convolution's last columns."""
        state = FLOAT32 * self.heads * self.key * self.value + c * self.kernel * self.channels
        return self.layers * sequences * state


def linear_attention_of(text: Any) -> LinearAttention | None:
    """Read it off a text config; None where there are no such layers."""
    layers = list(getattr(text, "layer_types", None) or ()).count("linear_attention")
    if not layers:
        return None
    return LinearAttention(
        layers, text.linear_num_value_heads, text.linear_num_key_heads, text.linear_key_head_dim,
        text.linear_value_head_dim, text.linear_conv_kernel_dim,
    )  # fmt: skip


def whole_chunks(tokens: int) -> int:
    """Tokens of a sequence with its padding."""
    return -(-tokens // CHUNK) * CHUNK
