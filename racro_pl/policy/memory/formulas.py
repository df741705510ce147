"""How many bytes each part of a step takes: one function a part, from shapes alone.

Each says what its formula counts and where that stands in the code.

Letters beside those of ``types.py``: ``c`` bytes per number of the base weights, ``h`` hidden size, ``i`` width of the
MLP, ``q`` and ``k`` width of all query and of all key heads, ``r`` rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from racro_pl.losses.logprobs import CHUNK_LOGITS
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.decode_attention import FIRST_ROOM
from racro_pl.policy.memory.decoder_sizes import most_norms, widest_experts, widest_mlp
from racro_pl.policy.memory.recurrent import FLOAT32, LinearAttention, linear_attention_of, whole_chunks
from racro_pl.policy.memory.towers import Tower, tower_of
from racro_pl.policy.structure import expert_names, head_name, linear_names, vision_names, vision_parameters


@dataclass(frozen=True)
class Work:
    """The most that a step does at one time, per rank."""

    prompt_tokens: int
    """Of the longest prompt (P), image tokens counted."""
    image_tokens: int
    """Of these, how many stand for images."""
    caption_tokens: int
    """Longest caption (T)."""
    group_size: int
    """Captions per question (G)."""
    groups: int
    """Groups per micro-batch."""
    questions: int
    """Questions per step: the features of their images are kept until its end."""
    sampled_together: int
    """Questions whose captions are sampled at one time; 0 when another process samples."""
    losses: int = 1
    """Whose gradients are summed apart within an update: 2 with objective joint."""


@dataclass(frozen=True)
class Shape:
    """What the formulas need of a model."""

    h: int
    i: int
    q: int
    k: int
    d: int
    layers: int
    vocab: int
    norms: int
    """Per layer, over the hidden size: two, or four where what a part gives is normed too (GLM-V, Gemma)."""
    joint_mlp: bool
    """One projection of width ``2 i`` makes gate and up (GLM-V)."""
    normed_heads: bool
    """Queries and keys go through a norm of their own (Qwen3-VL)."""
    tower: Tower
    deepstack: int
    """Early layers of the language model that get image features too."""
    experts: int
    """Numbers in one layer's stacked experts; 0 where there are none."""
    linear: LinearAttention | None
    """Its layers of linear attention."""


def shape_of(model: Any) -> Shape:
    """Read it off a model on the meta device."""
    text = model.config.get_text_config()

    def widest(name: str) -> int:
        """Some models give layers sizes of their own; a mixture's experts may be all that its MLP is."""
        return max(getattr(layer, name, None) or 0 for layer in text.per_layer_config)

    d = widest("head_dim") or text.hidden_size // text.num_attention_heads
    return Shape(
        h=text.hidden_size,
        i=max(widest("intermediate_size") or widest("moe_intermediate_size"), widest_mlp(model)),
        q=text.num_attention_heads * d,
        k=widest("num_key_value_heads") * d,
        d=d,
        layers=text.num_hidden_layers,
        vocab=text.vocab_size,
        norms=most_norms(model),
        joint_mlp=any(name.endswith("gate_up_proj") for name in linear_names(model)),
        normed_heads=any(name.endswith("q_norm") for name, _ in model.named_modules()),
        tower=tower_of(model.config),
        deepstack=len(getattr(model.config.vision_config, "deepstack_visual_indexes", None) or ()),
        experts=widest_experts(model),
        linear=linear_attention_of(text),
    )


# ------------------------------------------------------------------ in all phases


def weight_bytes(model: Any, policy: PolicySettings, c: int) -> int:
    """Bytes of the base weights (buffers are too small to count).

    Args:
        model: on the meta device.
        policy: with ``nf4``, linear layers outside the tower and the head are in 4 bits (policy/loading.py).
        c: bytes per number of all other weights.
    """
    import torch

    kept = (head_name(model), *(f"{name}." for name in vision_names(model)))
    packed: dict[int, int] = {}
    if policy.quantization == "nf4":
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and not name.startswith(kept):
                packed[id(module.weight)] = nf4_bytes(module.weight.numel())
    return sum(packed.get(id(weight), weight.numel() * c) for weight in model.parameters())


def nf4_bytes(numbers: int) -> int:
    """Bytes of a tensor in NF4 with double quantisation: 4 bits each, and their scales.

    A scale of 8 bits per block of 64, a float32 per 256 scales (QLoRA, Dettmers et al. 2023, section 3: 4.127 bits in
    all), and per tensor the two code books and an offset.
    """
    scales = math.ceil(numbers / 64)
    return math.ceil(numbers / 2) + scales + FLOAT32 * (math.ceil(scales / 256) + 16 + 256 + 1)


def trained_bytes(model: Any, policy: PolicySettings, c: int) -> int:
    """Bytes of what is trained: float32 adapters, ``r (in + out)`` numbers per layer, or the weights themselves."""
    if policy.lora is None:
        frozen = set(vision_parameters(model)) if policy.freeze_vision else set()
        return sum(weight.numel() * c for weight in model.parameters() if weight not in frozen)
    adapted = [model.get_submodule(name) for name in linear_names(model)]
    widths = sum(layer.in_features + layer.out_features for layer in adapted)
    if policy.lora.experts:
        stacks = [model.get_parameter(name).shape for name in expert_names(model)]
        widths += sum(experts * (one + other) for experts, one, other in stacks)
    return FLOAT32 * policy.lora.rank * widths


def adapted_expert_bytes(shape: Shape, c: int, policy: PolicySettings) -> int:
    """A layer's experts with their adapters added: peft makes them again in every forward pass of the layer."""
    return shape.experts * c if policy.lora is not None and policy.lora.experts else 0


def feature_bytes(shape: Shape, c: int, work: Work) -> int:
    """``questions * image tokens * h`` numbers, once more per deepstack layer (``ImageMemory``, policy/vision.py)."""
    return work.questions * work.image_tokens * shape.h * c * (1 + shape.deepstack)


# ------------------------------------------------------------------ in one phase or two


def tower_bytes(shape: Shape, c: int, work: Work) -> int:
    """The images that go through the tower together: their pixels in float32, and one block at work.

    A block's peak per patch (``v`` its hidden size, ``w`` the width of its MLP) is in the rotary embedding, input,
    queries, keys and values and eight tensors in float32: ``5 c v + 8 * 4 v``; or in the MLP: ``c (3 v + 3 w)``.
    """
    tower = shape.tower
    patches = max(work.sampled_together, work.groups) * work.image_tokens * tower.patches_per_token
    rotary = 5 * c * tower.width + 8 * FLOAT32 * tower.width
    mlp = c * 3 * (tower.width + tower.inner)
    return patches * (FLOAT32 * tower.patch_values + max(rotary, mlp))


def cache_bytes(shape: Shape, c: int, work: Work) -> int:
    """Keys and values, ``2 k`` numbers per token and layer: of prompts once per question, of captions each.

    Captions have room for a power of two times ``FIRST_ROOM`` tokens; and where one of them ends, the others' are
    copied before the old ones go (``GrowingAttention.keep``, policy/decode_attention.py): twice. So are the states of
    linear attention, which has no keys and values.
    """
    room = FIRST_ROOM * 2 ** max(0, math.ceil(math.log2(max(1, work.caption_tokens - 1) / FIRST_ROOM)))
    tokens = work.sampled_together * (work.prompt_tokens + 2 * work.group_size * room)
    linear = shape.linear.layers if shape.linear is not None else 0
    cache = (shape.layers - linear) * tokens * 2 * shape.k * c
    if shape.linear is not None:
        cache += shape.linear.states(c, work.sampled_together * (1 + 2 * work.group_size))
    return cache


def prefill_bytes(shape: Shape, c: int, work: Work) -> int:
    """Reading prompts, without gradient: residual stream and one MLP, or one layer of linear attention; then the first
    logits of every caption.

    The MLP's peak per token: gate and up in ``c``, and up's adapter in float32 before and after its scaling.
    """
    tokens = work.sampled_together * work.prompt_tokens
    mlp = tokens * (c * (3 * shape.h + 2 * shape.i) + FLOAT32 * (shape.h + 2 * shape.i))
    logits = work.sampled_together * work.group_size * shape.vocab * (c + 3 * FLOAT32)
    if shape.linear is None:
        return max(mlp, logits)
    return max(mlp, logits, shape.linear.read(c, shape.h, work.sampled_together * whole_chunks(work.prompt_tokens)))


@dataclass(frozen=True)
class Row:
    """A micro-batch packed in one row (policy/shared_prefix.py); a caption's last token is not in it."""

    prompts: int
    prompt: int
    captions: int
    caption: int

    @property
    def tokens(self) -> int:
        return self.prompts * self.prompt + self.captions * self.caption

    @property
    def chunked(self) -> int:
        """Tokens as layers of linear attention pad them."""
        return self.prompts * whole_chunks(self.prompt) + self.captions * whole_chunks(self.caption)


def row_of(work: Work) -> Row:
    """The largest micro-batch of the work."""
    return Row(work.groups, work.prompt_tokens, work.groups * work.group_size, work.caption_tokens - 1)


def activation_bytes(shape: Shape, c: int, policy: PolicySettings, work: Work) -> int:
    """What the forward pass keeps for the backward pass: all layers', or with checkpointing their inputs alone.

    Outside the layers: the final norm, the states that predict a caption token, and the mask of the captions.
    """
    row = row_of(work)
    if policy.gradient_checkpointing:
        layers = shape.layers * row.tokens * shape.h * c
    else:
        layers = shape.layers * layer_bytes(shape, c, policy, row)
        if shape.linear is not None:
            layers += shape.linear.layers * shape.linear.kept(c, shape.h, row.chunked)
    masks = row.captions if row.prompts > 1 else 1
    mask = masks * (shape.q // shape.k) * row.caption * (row.prompt + row.caption) * c
    return layers + mask + row.tokens * FLOAT32 * shape.h + row.captions * (row.caption + 1) * shape.h * c


def layer_bytes(shape: Shape, c: int, policy: PolicySettings, row: Row) -> int:
    """What one decoder layer keeps for its backward pass.

    Per token, by what saves it:

    - norms: their input in float32 and its scale: ``4 h + 4`` each;
    - the inputs of the adapters, in float32, once for q, k and v and once for gate and up: ``4 (2 h + q + i)``.
      Between A and B: ``7 * 4 r``;
    - without adapters the inputs of the layers themselves, and the norms' outputs: ``c (4 h + q + i)``;
    - SiLU and the product after it: ``3 c i``; the rotary embedding's sine and cosine: ``2 c d``.

    Attention keeps queries, keys, values and output, ``2 (q + k) c`` per token, and a float32 per head. Queries of
    captions are copied (``q c``), and each caption's keys and values follow a copy of its prompt's
    (``2 k c`` per token of both; ``GroupAttention``, policy/attention.py). Experts that are adapted: as they were used.
    """
    h, i, q, k = shape.h, shape.i, shape.q, shape.k
    per_token = shape.norms * (FLOAT32 * h + FLOAT32) + 3 * c * i + 2 * c * shape.d
    if policy.lora is None:
        per_token += c * (4 * h + q + i)
    else:
        per_token += FLOAT32 * (2 * h + q + i) + 7 * FLOAT32 * policy.lora.rank
    if shape.normed_heads:
        per_token += FLOAT32 * (q + k)
    per_token += 2 * (q + k) * c + FLOAT32 * q // shape.d
    own = row.captions * (row.caption * q + (row.prompt + row.caption) * 2 * k) * c
    return row.tokens * per_token + own + adapted_expert_bytes(shape, c, policy)


def workspace_bytes(shape: Shape, c: int, policy: PolicySettings, row: Row) -> int:
    """What is alive only while a layer runs backward: with checkpointing all that it keeps, computed again; the
    gradients of its MLP, or of its linear attention; those of adapted experts; a 4-bit weight unpacked.

    Of an MLP, per token: two tensors of width ``i`` in ``c`` and one in float32; two where gate and up are one
    projection, whose adapter gets the gradients of both at once. A layer of linear attention is counted as one of
    attention, and its own tensors besides: a little too much.
    """
    again = layer_bytes(shape, c, policy, row) if policy.gradient_checkpointing else 0
    gradients = row.tokens * shape.i * (2 * c + (2 if shape.joint_mlp else 1) * FLOAT32)
    if shape.linear is not None:
        again += shape.linear.kept(c, shape.h, row.chunked) if policy.gradient_checkpointing else 0
        gradients = max(gradients, shape.linear.backward(c, shape.h, row.chunked))
    unpacked = c * shape.h * shape.i if policy.quantization == "nf4" else 0
    return again + gradients + unpacked + adapted_expert_bytes(shape, c, policy)


def logit_bytes(shape: Shape, c: int, work: Work) -> int:
    """The logits that exist at one time, in the head's dtype and five times in float32 (losses/logprobs.py)."""
    rows = min(work.groups * work.group_size * work.caption_tokens, max(1, CHUNK_LOGITS // shape.vocab))
    return rows * shape.vocab * (c + 5 * FLOAT32)
