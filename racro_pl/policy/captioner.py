"""The policy: a vision-language model that samples captions and tells the log-probs of captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from racro_pl.files import follow_umask
from racro_pl.policy.adapters import START, TRAINED, switched
from racro_pl.policy.decoding import Draw
from racro_pl.policy.families import Family
from racro_pl.policy.fsdp import Pass, gathered, keep_step, shard
from racro_pl.policy.paths import CaptionPath, SharedPrefixPath, choose_path
from racro_pl.policy.plain_path import PlainPath
from racro_pl.policy.prompts import PromptEncoder, PromptTemplate
from racro_pl.policy.sampling import Captions
from racro_pl.policy.structure import in_eval_mode
from racro_pl.policy.vision import ImageCache, ImageMemory
from racro_pl.policy.vocabulary import banned_tokens, mask_to_first_end
from racro_pl.pretrained.weights import end_token_ids
from racro_pl.types import Prompt, Question, RacroError


class Captioner(nn.Module):
    """The model, with adapters or a frozen copy as reference, and the four calls that RL needs of it.

    Args:
        model: a transformers image-text-to-text model, or a PEFT model around one.
        family: what cannot be read off the model.
        reference: the frozen copy for full fine-tuning; None when switching adapters gives the reference.
        image_cache: keeps what the frozen vision tower made of images from step to step; None for not at all.
    """

    def __init__(
        self,
        model: Any,
        encoder: PromptEncoder,
        family: Family,
        reference: Any | None = None,
        image_cache: ImageCache | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.encoder = encoder
        self.family = family
        self.reference = reference
        self.eos_ids = end_token_ids(model.generation_config, encoder.tokenizer, "the captioner")
        pad_id = encoder.tokenizer.pad_token_id
        self.pad_id = min(self.eos_ids) if pad_id is None else pad_id
        self.banned: Tensor
        banned = banned_tokens(_without_adapters(model), encoder.processor, self.eos_ids)
        self.register_buffer("banned", banned, persistent=False)
        self._images = ImageMemory(image_cache)
        self._all_modules = tuple(self.modules())
        self._adapted = [module for module in self._all_modules if hasattr(type(module), "_disable_adapters")]
        self._sharded = False
        self.compute_dtype: torch.dtype | None = None
        """Of sharded weights; None for the one that they are stored in."""
        self.path: CaptionPath
        self.plain_because: str | None
        """Why the plain path runs; None on the shared-prefix path."""
        self.path, self.plain_because = choose_path(self.parts(), family, self._images)

    @property
    def device(self) -> torch.device:
        return self.banned.device

    def parts(self) -> list[Any]:
        """The transformers models themselves: the policy's, and the reference's where it is a copy."""
        return [_without_adapters(part) for part in (self.model, self.reference) if part is not None]

    def forward(self, work: Callable[[], Any]) -> Any:
        """Do ``work``. All that reads weights goes through here: around it sharded ones are gathered and let go.

        Without arguments, which FSDP would copy and cast: a prompt equals only itself.
        """
        return work()

    def train(self, mode: bool = True) -> Captioner:
        """Train mode (which gradient checkpointing keys on) for what is trained; the frozen parts stay in eval mode."""
        super().train(mode)
        if self.reference is not None:
            self.reference.eval()
        return self

    def encode(
        self, question: Question, prompt_template: PromptTemplate | None = None, like: Prompt | None = None
    ) -> Prompt:
        """See :meth:`PromptEncoder.encode`; ``like`` is a prompt of the same question, whose image features serve."""
        prompt = self.encoder.encode(question, prompt_template)
        if like is not None:
            prompt = replace(prompt, vision=like.vision)
        self._images.name(prompt, question.images)
        return prompt

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Prompt], group_size: int, max_new_tokens: int, temperature: float | None
    ) -> Captions:
        """Write ``group_size`` captions per prompt.

        Args:
            group_size: captions per prompt (G).
            max_new_tokens: caption length limit in tokens.
            temperature: None for greedy.

        Returns:
            B * G captions, those of one prompt side by side.
        """
        ends = torch.tensor(sorted(self.eos_ids), device=self.device)
        draw = Draw(temperature, self.banned, ends, self.pad_id)
        model = _without_adapters(self.model)
        with self._evaluating():
            token_ids, logprobs = self(partial(self.path.sample, model, prompts, group_size, max_new_tokens, draw))
        mask = mask_to_first_end(token_ids, self.eos_ids)
        ended = torch.isin(token_ids, ends) & mask
        groups = zip(prompts, token_ids.split(group_size), strict=True)
        texts = [text for prompt, rows in groups for text in self.encoder.decode(prompt, rows)]
        return Captions(token_ids, mask, logprobs, tuple(texts), tuple((~ended.any(dim=1)).tolist()))

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
        self._enter(Pass.TRAINED)
        return self(partial(self._score, self.model, prompts, prompt_index, token_ids, mask, temperature))

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
        self._enter(Pass.REFERENCE if reference else Pass.FROZEN)
        return self._frozen(prompts, prompt_index, token_ids, mask, temperature, reference=reference)

    @torch.no_grad()
    def _frozen(self, *inputs: Any, reference: bool) -> Float[Tensor, "n t"]:
        chosen = self._as_reference() if reference else nullcontext(self.model)
        with self._evaluating(), chosen as model:
            return self(partial(self._score, model, *inputs))[0]

    @contextmanager
    def _as_reference(self) -> Iterator[Any]:
        """The reference: a frozen copy, the base with the adapter that the run started from, or the bare base."""
        if self.reference is not None:
            yield self.reference
        else:
            with switched(self._adapted, START if START in self.model.peft_config else None):
                yield self.model

    def without_adapter(self) -> AbstractContextManager[None]:
        """While this lasts, a policy with adapters is its bare base. For passes without gradient."""
        return switched(self._adapted, None)

    def _score(self, model: Any, *inputs: Any) -> tuple[Float[Tensor, "n t"], Float[Tensor, "n t"]]:
        return self.path.score(_without_adapters(model), *(*inputs, self.banned))

    # ------------------------------------------------------------------ shared prefix or plain

    def use_plain_path(self, reason: str) -> None:
        """From here on the model's own forward and ``generate`` run; see ``policy/plain_path.py``.

        Args:
            reason: why the shared-prefix path is not to be trusted.

        Raises:
            RacroError: the weights are sharded.
        """
        self.plain_because = reason
        self._refuse_plain_shards(self._sharded)
        if isinstance(self.path, SharedPrefixPath):
            self.path.remove()
        self.path = PlainPath(self.parts(), batched=True)

    def _refuse_plain_shards(self, sharded: bool) -> None:
        if sharded and self.plain_because is not None:
            # A forward per caption: ranks would gather weights in different numbers and orders.
            raise RacroError(
                f"sharded weights need the shared-prefix path, which does not run here: {self.plain_because}; use the "
                "ddp strategy"
            )

    # ------------------------------------------------------------------ weights spread over devices

    def shard(self, device: torch.device, mesh: DeviceMesh, compute_dtype: torch.dtype | None) -> None:
        """See :func:`racro_pl.policy.fsdp.shard`. From here on the ranks keep in step.

        Raises:
            RacroError: the captioner is on the plain path.
        """
        self._refuse_plain_shards(True)
        shard(self, device, mesh, compute_dtype)
        self._sharded = True
        self.compute_dtype = compute_dtype

    def gathered(self) -> AbstractContextManager[None]:
        """See :func:`racro_pl.policy.fsdp.gathered`: needed to generate, and entered by all ranks."""
        return gathered(self, self.model)

    def sync_ranks(self) -> None:
        """Wait until no rank has a pass of log-probs left to make.

        To be called by all ranks before they exchange anything else. At once where weights are not sharded.
        """
        self._enter(Pass.NONE)

    def _enter(self, kind: Pass) -> None:
        if self._sharded:
            keep_step(kind, self._empty_pass, self.device)

    def _empty_pass(self, kind: Pass) -> None:
        token = torch.tensor([min(self.eos_ids)])
        prompt = Prompt(token, torch.zeros_like(token))
        inputs = ([prompt], torch.tensor([0]), token[None], torch.ones(1, 1, dtype=torch.bool), 1.0)
        if kind == Pass.TRAINED:
            logprobs, _ = self(partial(self._score, self.model, *inputs))
            # Zeros, by the same way back: gradients of every layer are waited for by the other ranks.
            (0.0 * logprobs.sum()).backward()
        else:
            self._frozen(*inputs, reference=kind == Pass.REFERENCE)

    # ------------------------------------------------------------------ images

    def cache_image_features(self) -> AbstractContextManager[None]:
        """While this lasts, an image goes through a frozen vision tower once, for all passes and captions.

        A tower that is being trained encodes images again in every pass, with gradient.
        """
        return self._images.remembering()

    def drain_metrics(self) -> dict[str, float]:
        """What the image cache did since the last call; nothing without one."""
        return self._images.cache.drain_metrics() if self._images.cache is not None else {}

    def _evaluating(self) -> AbstractContextManager[None]:
        # In train mode with gradient checkpointing, generation would run without its KV cache.
        return in_eval_mode(self._all_modules)

    def save(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write what was trained: a PEFT folder, or after full fine-tuning a model folder with its processor.

        Args:
            weights: whole ones, by name, where the model itself holds a rank's shards only.
        """
        if self.reference is None:
            self.model.save_pretrained(str(folder), selected_adapters=[TRAINED])
        else:
            self.model.save_pretrained(str(folder), state_dict=weights)
            self.encoder.processor.save_pretrained(str(folder))
        follow_umask(folder)


def _without_adapters(model: Any) -> Any:
    """The transformers model itself: adapters are inside its layers, on or off, not around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
