"""Two ways to run a model on prompts with captions, with one interface, so that training need not know which.

:class:`SharedPrefixPath` forwards every image and every prompt once, whatever the number of captions. It needs a
family that was described, and is compared with the other way before the first step (``policy/packing_probe.py``).
:class:`racro_pl.policy.plain_path.PlainPath` is the ordinary forward and ``generate`` of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor

from racro_pl.losses import head_logprobs
from racro_pl.policy import attention
from racro_pl.policy.families import Family
from racro_pl.policy.features import ImageFeatures, join_features
from racro_pl.policy.forward_check import check_forward
from racro_pl.policy.plain_path import PlainPath
from racro_pl.policy.sampling import sample_captions
from racro_pl.policy.shared_prefix import drop_idle, pack_groups, read_row
from racro_pl.policy.structure import head_of, vision_parameters
from racro_pl.policy.two_way import two_way_of
from racro_pl.policy.vision import ImageMemory, encode_images
from racro_pl.types import Prompt, RacroError


class CaptionPath(Protocol):
    """Log-probs of captions, and captions, from a transformers model without adapters around it."""

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
            model: one that the path was built for.
            prompts: the distinct prompts.
            prompt_index: which prompt each caption follows.
            token_ids, mask: captions, padded on the right; at least one token.
            temperature: as in sampling.
            banned: tokens that take no probability mass.
        """
        ...

    def sample(
        self,
        model: Any,
        prompts: Sequence[Prompt],
        group_size: int,
        max_new_tokens: int,
        temperature: float | None,
        *,
        banned: Bool[Tensor, " vocab"],
        eos_ids: frozenset[int],
        pad_id: int,
    ) -> tuple[Int[Tensor, "n t"], Float[Tensor, "n t"]]:
        """``group_size`` captions per prompt, side by side; see :func:`racro_pl.policy.sampling.sample_captions`."""
        ...


def choose_path(models: Sequence[Any], family: Family, images: ImageMemory) -> tuple[CaptionPath, str | None]:
    """The shared-prefix path where it can run, else the plain one with the reason.

    Args:
        models, family, images: as in :class:`SharedPrefixPath`.

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


class SharedPrefixPath:
    """Every prompt and its images once, then the captions; see ``policy/shared_prefix.py`` and ``policy/sampling.py``.

    Args:
        models: the transformers models that go through it; their attention is replaced.
        family: of all of them.
        images: remembers what a frozen tower made of images.

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
        """See :meth:`CaptionPath.score`. A prompt without a caption token is not forwarded at all."""
        prompts, prompt_index = drop_idle(prompts, prompt_index, mask)
        packed = pack_groups(model.model, prompts, prompt_index, token_ids, mask, banned.device, self.two_way)
        images = self._look(model, prompts)
        hidden = read_row(model, packed.input_ids, packed.position_ids, packed.attention, images)
        predicting = hidden.index_select(0, packed.predictors)
        logprobs, entropies = head_logprobs(head_of(model), predicting, packed.targets, banned, temperature)
        return packed.spread(logprobs), packed.spread(entropies)

    def sample(
        self,
        model: Any,
        prompts: Sequence[Prompt],
        group_size: int,
        max_new_tokens: int,
        temperature: float | None,
        *,
        banned: Bool[Tensor, " vocab"],
        eos_ids: frozenset[int],
        pad_id: int,
    ) -> tuple[Int[Tensor, "n t"], Float[Tensor, "n t"]]:
        """See :func:`racro_pl.policy.sampling.sample_captions`."""
        return sample_captions(
            model,
            self._look(model, prompts),
            prompts,
            group_size,
            max_new_tokens,
            temperature,
            banned=banned,
            eos_ids=eos_ids,
            pad_id=pad_id,
            two_way=self.two_way,
        )

    def _look(self, model: Any, prompts: Sequence[Prompt]) -> dict[str, ImageFeatures] | None:
        if any(parameter.requires_grad for parameter in vision_parameters(model)):
            return join_features(encode_images(model, prompts))
        return join_features(self._images.look(model, prompts))
