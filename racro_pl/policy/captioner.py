"""The policy: a vision-language model that samples captions and tells the log-probs of captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from racro_pl.losses import head_logprobs
from racro_pl.policy import attention
from racro_pl.policy.adapters import START, TRAINED
from racro_pl.policy.families import Family
from racro_pl.policy.prompts import PromptEncoder, Wording
from racro_pl.policy.sampling import sample_captions
from racro_pl.policy.shared_prefix import drop_idle, pack_groups
from racro_pl.policy.vision import ImageFeatures, ImageMemory, encode_images, join_features
from racro_pl.types import Prompt, Question


@dataclass(frozen=True)
class Captions:
    """What :meth:`Captioner.generate` wrote, prompt after prompt, ``group_size`` rows each."""

    token_ids: Int[Tensor, "n t"]
    mask: Bool[Tensor, "n t"]
    texts: tuple[str, ...]
    truncated: tuple[bool, ...]


class Captioner(nn.Module):
    """Wraps the model (with adapters, or with a frozen copy as reference) behind the four things RL asks of it.

    Args:
        model: a transformers image-text-to-text model, or a PEFT model around one.
        encoder: turns questions into prompts.
        family: names inside the model.
        reference: the frozen copy for full fine-tuning; None when switching adapters gives the reference.
    """

    def __init__(self, model: Any, encoder: PromptEncoder, family: Family, reference: Any | None = None) -> None:
        super().__init__()
        self.model = model
        self.encoder = encoder
        self.family = family
        self.reference = reference
        self.eos_ids, self.pad_id = _end_tokens(model, encoder.tokenizer)
        vocabulary = model.get_input_embeddings().weight.shape[0]
        banned = torch.zeros(vocabulary, dtype=torch.bool)
        banned[list(_banned_tokens(model.config, encoder.tokenizer, family, self.eos_ids))] = True
        self.banned: Tensor
        self.register_buffer("banned", banned, persistent=False)
        self._images = ImageMemory()
        for part in (model, reference):
            if part is not None:
                attention.install(_without_adapters(part))

    @property
    def device(self) -> torch.device:
        return self.banned.device

    def train(self, mode: bool = True) -> Captioner:
        """Train mode (which gradient checkpointing keys on) for what is trained; the frozen parts stay in eval mode."""
        super().train(mode)
        if self.reference is not None:
            self.reference.eval()
        return self

    def encode(self, question: Question, wording: Wording | None = None) -> Prompt:
        """See :meth:`PromptEncoder.encode`."""
        return self.encoder.encode(question, wording)

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Prompt], group_size: int, max_new_tokens: int, temperature: float | None
    ) -> Captions:
        """Write ``group_size`` captions per prompt.

        Args:
            prompts: B prompts.
            group_size: captions per prompt (G).
            max_new_tokens: caption length limit in tokens.
            temperature: None for greedy.

        Returns:
            B * G captions, those of one prompt side by side.
        """
        with self._evaluating():
            model = _without_adapters(self.model)
            token_ids = sample_captions(
                model,
                self._look(model, prompts),
                prompts,
                group_size,
                max_new_tokens,
                temperature,
                banned=self.banned,
                eos_ids=self.eos_ids,
                pad_id=self.pad_id,
            )
        mask = mask_to_first_end(token_ids, self.eos_ids)
        ended = torch.isin(token_ids, torch.tensor(sorted(self.eos_ids), device=token_ids.device)) & mask
        texts = self.encoder.tokenizer.batch_decode(token_ids, skip_special_tokens=True)
        return Captions(token_ids, mask, tuple(texts), tuple((~ended.any(dim=1)).tolist()))

    def logprobs(
        self,
        prompts: Sequence[Prompt],
        prompt_index: Int[Tensor, " n"],
        token_ids: Int[Tensor, "n t"],
        mask: Bool[Tensor, "n t"],
        temperature: float = 1.0,
    ) -> tuple[Float[Tensor, "n t"], Float[Tensor, "n t"]]:
        """Log-probs (with gradient) and entropies (without) of caption tokens under the policy now.

        Args:
            prompts: the distinct prompts; each is forwarded once, and not at all without a caption token.
            prompt_index: which prompt each caption follows.
            token_ids, mask: captions, padded on the right; at least one token.
            temperature: as in sampling.

        Returns:
            Log-probs and entropies in nats; 0 on padding.
        """
        return self._score(self.model, prompts, prompt_index, token_ids, mask, temperature)

    @torch.no_grad()
    def frozen_logprobs(
        self,
        prompts: Sequence[Prompt],
        prompt_index: Int[Tensor, " n"],
        token_ids: Int[Tensor, "n t"],
        mask: Bool[Tensor, "n t"],
        temperature: float = 1.0,
        *,
        reference: bool,
    ) -> Float[Tensor, "n t"]:
        """As :meth:`logprobs`, without gradient: of the reference (what the run began with), or of the policy now."""
        chosen = self._as_reference() if reference else nullcontext(self.model)
        with self._evaluating(), chosen as model:
            return self._score(model, prompts, prompt_index, token_ids, mask, temperature)[0]

    @contextmanager
    def _as_reference(self) -> Iterator[Any]:
        """The reference: a frozen copy, the base with the adapter that the run started from, or the bare base."""
        if self.reference is not None:
            yield self.reference
        elif START in self.model.peft_config:
            self.model.set_adapter(START, inference_mode=True)
            try:
                yield self.model
            finally:
                self.model.set_adapter(TRAINED)
        else:
            with self.model.disable_adapter():
                yield self.model

    def without_adapter(self) -> AbstractContextManager[None]:
        """While this lasts, a policy with adapters is its bare base."""
        return self.model.disable_adapter()

    def _score(
        self,
        model: Any,
        prompts: Sequence[Prompt],
        prompt_index: Int[Tensor, " n"],
        token_ids: Int[Tensor, "n t"],
        mask: Bool[Tensor, "n t"],
        temperature: float,
    ) -> tuple[Float[Tensor, "n t"], Float[Tensor, "n t"]]:
        """Forward every prompt once and every caption once, whatever the number of captions per prompt."""
        model = _without_adapters(model)
        prompts, prompt_index = drop_idle(prompts, prompt_index, mask)
        packed = pack_groups(model.model, prompts, prompt_index, token_ids, mask, self.device)
        hidden = model.model(
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            mm_encoder_outputs=self._look(model, prompts),
            shared_prefix=packed.attention,
            use_cache=False,
        ).last_hidden_state[0]
        predicting = hidden.index_select(0, packed.predictors)
        logprobs, entropies = head_logprobs(model.lm_head, predicting, packed.targets, self.banned, temperature)
        return packed.spread(logprobs), packed.spread(entropies)

    def seeing_once(self) -> AbstractContextManager[None]:
        """While this lasts, an image goes through a frozen vision tower once, for all passes and captions.

        A tower that is being trained looks anew in every pass, with gradient.
        """
        return self._images.remembering()

    def _look(self, model: Any, prompts: Sequence[Prompt]) -> dict[str, ImageFeatures] | None:
        tower = model.get_submodule(self.family.vision_prefix)
        if any(parameter.requires_grad for parameter in tower.parameters()):
            return join_features(encode_images(model, prompts))
        return join_features(self._images.look(model, prompts))

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        # In train mode with gradient checkpointing, generation would run without its KV cache.
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    def save(self, folder: Path) -> None:
        """Write what was trained: a PEFT folder, or after full fine-tuning a model folder with its processor."""
        if self.reference is None:
            self.model.save_pretrained(str(folder), selected_adapters=[TRAINED])
        else:
            self.model.save_pretrained(str(folder))
            self.encoder.processor.save_pretrained(str(folder))


def mask_to_first_end(token_ids: Int[Tensor, "n t"], eos_ids: frozenset[int]) -> Bool[Tensor, "n t"]:
    """True up to and including the first end token of each row; all True in a row that has none.

    >>> mask_to_first_end(torch.tensor([[5, 2, 2], [5, 6, 7]]), frozenset({2})).int()
    tensor([[1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    is_end = torch.isin(token_ids, torch.tensor(sorted(eos_ids), device=token_ids.device))
    ends_before = is_end.cumsum(dim=1) - is_end.long()
    return ends_before == 0


def _end_tokens(model: Any, tokenizer: Any) -> tuple[frozenset[int], int]:
    """End-of-text ids (the checkpoint's generation config may list several) and the padding id."""
    eos = model.generation_config.eos_token_id
    if eos is None:
        eos = tokenizer.eos_token_id
    eos_ids = frozenset([eos] if isinstance(eos, int) else eos)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(eos_ids)
    return eos_ids, pad_id


def _banned_tokens(config: Any, tokenizer: Any, family: Family, eos_ids: frozenset[int]) -> set[int]:
    """Every special token but the ends of text, and the family's vision tokens.

    A sampled image placeholder would make the next forward count more image tokens than image features.
    """
    special = set(tokenizer.all_special_ids) | {
        index for index, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    vision = {getattr(config, name) for name in family.vision_token_fields}
    return (special | vision) - eos_ids


def _without_adapters(model: Any) -> Any:
    """The transformers model itself: adapters are inside its layers, on or off, not around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
