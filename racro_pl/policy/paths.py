"""Two ways to run a model on prompts with captions, with one interface, so that training need not know which.

:class:`SharedPrefixPath` forwards every image and every prompt once, whatever the number of captions. It needs a
family that was described, and is compared with the other way before the first step (``policy/packing_probe.py``).
:class:`racro_pl.policy.plain_path.PlainPath` is the ordinary forward and ``generate`` of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from racro_pl.losses import head_logprobs
from racro_pl.policy import attention
from racro_pl.policy.decoding import Draw, Written
from racro_pl.policy.families import Family
from racro_pl.policy.plain_path import PlainPath
from racro_pl.policy.sampling import sample_captions
from racro_pl.policy.shared_prefix import drop_idle, pack_groups, read_row
from racro_pl.policy.structure import head_of, vision_parameters
from racro_pl.policy.two_way import two_way_of
from racro_pl.policy.vision import ImageFeatures, ImageMemory, encode_images, join_features
from racro_pl.types import Prompt, RacroError

PASSED = ("input_ids", "position_ids", "mm_encoder_outputs")
"""What is passed to a model itself; all else is for its layers."""


class SharedPrefixPath:
    """Every prompt and its images once, then the captions; see ``policy/shared_prefix.py`` and ``policy/sampling.py``.

    Args:
        models: the transformers models that go through it; their attention is replaced.

    Raises:
        RacroError: their language models have layers that a packed row cannot go through; nothing is replaced then.
    """

    def __init__(self, models: Sequence[Any], family: Family, images: ImageMemory) -> None:
        self.two_way = two_way_of(family, models[0].config)
        self._models = models
        self._images = images
        found = models[0].config.get_text_config()._attn_implementation
        self._ordinary = "sdpa" if found == attention.NAME else found  # a captioner built around a model again
        for model in models:
            attention.install(model, family.recurrent)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """While this lasts, the models attend as transformers loaded them. Not to be left between a forward and its
        backward: gradient checkpointing would compute again by another implementation."""
        self.remove()
        try:
            yield
        finally:
            for model in self._models:
                model.set_attn_implementation({"text_config": attention.NAME})

    def remove(self) -> None:
        """Give the models back the attention that transformers loaded them with."""
        for model in self._models:
            model.set_attn_implementation({"text_config": self._ordinary})

    def score(
        self,
        model: Any,
        prompts: Sequence[Prompt],
        prompt_index: Int[Tensor, " n"],
        token_ids: Int[Tensor, "n t"],
        mask: Bool[Tensor, "n t"],
        temperature: float,
        banned: Bool[Tensor, " vocab"],
    ) -> tuple[Float[Tensor, "n t"], Float[Tensor, "n t"]]:
        """Log-probs (with gradient where it is on) and entropies (without), in nats; 0 on padding.

        Args:
            model: one that the path was built for, without adapters around it.
            prompts: the distinct prompts. One without a caption token is not forwarded at all.
            prompt_index: which prompt each caption follows.
            token_ids, mask: captions, padded on the right; at least one token.
            temperature: as in sampling.
            banned: tokens that take no probability mass.
        """
        prompts, prompt_index = drop_idle(prompts, prompt_index, mask)
        packed = pack_groups(model.model, prompts, prompt_index, token_ids, mask, banned.device, self.two_way)
        images = self._look(model, prompts)
        hidden = read_row(model, packed.input_ids, packed.position_ids, packed.attention, images)
        predicting = _ReadRows.apply(hidden, packed.predictors)
        logprobs, entropies = head_logprobs(head_of(model), predicting, packed.targets, banned, temperature)
        return packed.spread(logprobs), packed.spread(entropies)

    def sample(
        self, model: Any, prompts: Sequence[Prompt], group_size: int, max_new_tokens: int, draw: Draw
    ) -> Written:
        """``group_size`` captions per prompt, side by side; see :func:`racro_pl.policy.sampling.sample_captions`."""
        images = self._look(model, prompts)
        return sample_captions(model, images, prompts, group_size, max_new_tokens, draw, self.two_way)

    def _look(self, model: Any, prompts: Sequence[Prompt]) -> dict[str, ImageFeatures] | None:
        if any(parameter.requires_grad for parameter in vision_parameters(model)):
            return join_features(encode_images(model, prompts))
        return join_features(self._images.look(model, prompts))


CaptionPath = SharedPrefixPath | PlainPath


def choose_path(models: Sequence[Any], family: Family, images: ImageMemory) -> tuple[CaptionPath, str | None]:
    """The shared-prefix path where it can run, else the plain one with the reason.

    Raises:
        RacroError: the models' forward does not take what is passed to it: transformers is too old.
    """
    if family.undescribed is not None:
        return PlainPath(models, batched=True), family.undescribed
    for model in models:
        check_forward(model.model)
    try:
        return SharedPrefixPath(models, family, images), None
    except RacroError as error:
        return PlainPath(models, batched=True), str(error)


def check_forward(model: Any) -> None:
    """Refuse a model whose forward does not name what is passed to it.

    Args:
        model: the part of a transformers model that a captioner calls (``model.model``).

    Raises:
        RacroError: names the arguments that it would swallow.
    """
    known = signature(model.forward).parameters
    swallowed = [name for name in PASSED if name not in known]
    if swallowed:
        import transformers

        raise RacroError(
            f"{type(model).__name__} of transformers {transformers.__version__} does not take {', '.join(swallowed)}: "
            "images or positions would be ignored; expected transformers >= 5.18"
        )


class _ReadRows(torch.autograd.Function):
    """Some rows, a few of them often (the last token of a prompt predicts the first of all its captions). CUDA's own
    backward pass adds these in an order that varies."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.size = len(values)
        return values.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        out = gradient.new_zeros(ctx.size, *gradient.shape[1:])
        if gradient.device.type == "cuda":
            return out.index_put_((rows,), gradient, accumulate=True), None  # sorts the rows first
        return out.index_add_(0, rows, gradient), None
