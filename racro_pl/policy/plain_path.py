"""The model's own forward and ``generate``, from pixels: right for every class, without knowing anything of it.

One caption at a time, each after its own copy of the prompt: how a class wants the images of several prompts joined,
padded or counted is not known here, and a row that stands alone needs no padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from racro_pl.losses import token_logprobs
from racro_pl.types import Prompt

DROPOUT = ("attention_dropout", "activation_dropout", "dropout", "attn_dropout", "dropout_p")
"""Names of the rates that layers of transformers hold as numbers."""


class PlainPath:
    """Implements :class:`racro_pl.policy.paths.CaptionPath`.

    Args:
        models: those whose dropout is switched off: captions have to be scored as they were sampled, in train mode too.
    """

    def __init__(self, models: Sequence[Any] = ()) -> None:
        for model in models:
            _switch_off_dropout(model)

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
        """See :meth:`racro_pl.policy.paths.CaptionPath.score`. A caption without a token is not forwarded."""
        token_ids, mask = token_ids.to(banned.device), mask.to(banned.device)
        found = [
            _score_caption(model, prompts[which], written[real], temperature, banned)
            for which, written, real in zip(prompt_index.tolist(), token_ids, mask, strict=True)
            if real.any()
        ]
        logprobs, entropies = (torch.cat(values) for values in zip(*found, strict=True))
        blank = logprobs.new_zeros(mask.shape)
        return blank.masked_scatter(mask, logprobs), blank.masked_scatter(mask, entropies)

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
        own = model.generation_config
        # Its settings (a penalty on repetition, top-k) would be taken over where those of a call say nothing.
        model.generation_config = _bare_config(max_new_tokens, temperature, sorted(eos_ids), pad_id)
        try:
            rows = [_write(model, prompt, temperature, banned) for prompt in prompts for _ in range(group_size)]
        finally:
            model.generation_config = own
        longest = max(len(ids) for ids, _ in rows)
        shape = (len(rows), longest)
        captions = torch.full(shape, pad_id, device=banned.device)
        logprobs = torch.zeros(shape, device=banned.device)
        for row, (ids, told) in enumerate(rows):
            captions[row, : len(ids)], logprobs[row, : len(ids)] = ids, told
        return captions, logprobs


def _inputs(model: Any, prompt: Prompt, ids: Int[Tensor, " l"]) -> dict[str, Tensor]:
    """What the model's forward takes for a row that begins with the prompt."""
    device = ids.device
    types = torch.cat([prompt.mm_token_type_ids.to(device), ids.new_zeros(len(ids) - len(prompt.input_ids))])[None]
    given = {"mm_token_type_ids": types, "token_type_ids": types, **prompt.vision}
    taken = signature(model.forward).parameters
    named = {name: tensor.to(device) for name, tensor in given.items() if name in taken}
    return {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None], **named}


def _score_caption(
    model: Any, prompt: Prompt, caption: Int[Tensor, " t"], temperature: float, banned: Bool[Tensor, " vocab"]
) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"]]:
    # The last token predicts nothing: it is not forwarded.
    ids = torch.cat([prompt.input_ids.to(caption.device), caption[:-1]])
    kept = {"logits_to_keep": len(caption)} if "logits_to_keep" in signature(model.forward).parameters else {}
    out = model(**_inputs(model, prompt, ids), use_cache=False, **kept)
    logits = out.logits[0, -len(caption) :]  # some keep all, whatever they are asked
    # Float32 copies of the logits of all captions would be the most that a step holds: made again in the backward.
    return checkpoint(
        token_logprobs, logits, caption, banned, temperature, use_reentrant=False, preserve_rng_state=False
    )


def _bare_config(max_new_tokens: int, temperature: float | None, eos_ids: list[int], pad_id: int) -> GenerationConfig:
    """Tokens are drawn from the whole distribution, which :class:`_Drawn` has brought to its temperature."""
    whole = {} if temperature is None else {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    return GenerationConfig(
        do_sample=temperature is not None, num_beams=1, max_new_tokens=max_new_tokens, eos_token_id=eos_ids,
        pad_token_id=pad_id, **whole,
    )  # fmt: skip


def _write(
    model: Any, prompt: Prompt, temperature: float | None, banned: Bool[Tensor, " vocab"]
) -> tuple[Int[Tensor, " t"], Float[Tensor, " t"]]:
    """One caption, and the log-probs that its tokens were drawn with (0 where greedy)."""
    start = prompt.input_ids.to(banned.device)
    drawn = _Drawn(temperature, banned)
    rows = model.generate(**_inputs(model, prompt, start), logits_processor=LogitsProcessorList([drawn]))
    written = rows[0, len(start) :]
    return written, drawn.logprobs(written)


class _Drawn(LogitsProcessor):
    """Bans tokens, sets the temperature, and keeps the log-prob of every token that is drawn.

    A step's token shows in the next step's ids: until then the whole distribution is kept.
    """

    def __init__(self, temperature: float | None, banned: Bool[Tensor, " vocab"]) -> None:
        self._temperature = temperature
        self._banned = banned
        self._distribution: Tensor | None = None
        self._told: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._tell(input_ids[0, -1])
        scores = scores.float().masked_fill(self._banned, float("-inf"))
        if self._temperature is None:
            return scores
        scores = scores / self._temperature
        self._distribution = scores[0].log_softmax(dim=-1)
        return scores

    def logprobs(self, written: Int[Tensor, " t"]) -> Float[Tensor, " t"]:
        """Of all tokens, the last one's included."""
        self._tell(written[-1])
        return torch.stack(self._told) if self._told else torch.zeros(len(written), device=written.device)

    def _tell(self, token: Tensor) -> None:
        if self._distribution is not None:
            self._told.append(self._distribution[token])


def _switch_off_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in DROPOUT:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
