"""The model's own forward and ``generate``, from pixels: right for every class, without knowing anything of it.

A prompt at a time; its captions are the rows of one batch, each after its own copy of prompt and images. How a class
wants the images of different prompts joined, padded or counted is not known here. That it takes copies of one prompt is
tried before the first step (``policy/packing_probe.py``); else captions go through the model one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import signature
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from racro_pl.losses import token_logprobs
from racro_pl.policy.decoding import Draw, Written
from racro_pl.policy.vocabulary import mask_to_first_end
from racro_pl.types import Prompt

DROPOUT = ("attention_dropout", "activation_dropout", "dropout", "attn_dropout", "dropout_p")
"""Names of the rates that layers of transformers hold as numbers."""


class PlainPath:
    """Stands in for :class:`racro_pl.policy.paths.SharedPrefixPath`.

    Args:
        models: those whose dropout is switched off: captions have to be scored as they were sampled, in train mode too.
        batched: whether the captions of a prompt go through the model together.
    """

    def __init__(self, models: Sequence[Any] = (), *, batched: bool = False) -> None:
        self.batched = batched
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
        """As :meth:`racro_pl.policy.paths.SharedPrefixPath.score`. A caption without a token is not forwarded."""
        token_ids, mask = token_ids.to(banned.device), mask.to(banned.device)
        rows = zip(prompt_index.tolist(), token_ids, mask, strict=True)
        captions = [(which, written[real]) for which, written, real in rows if real.any()]
        found = [
            scored
            for which, batch in self._batches(captions)
            for scored in _score(model, prompts[which], batch, temperature, banned)
        ]
        logprobs, entropies = (torch.cat(values) for values in zip(*found, strict=True))
        blank = logprobs.new_zeros(mask.shape)
        return blank.masked_scatter(mask, logprobs), blank.masked_scatter(mask, entropies)

    def sample(
        self, model: Any, prompts: Sequence[Prompt], group_size: int, max_new_tokens: int, draw: Draw
    ) -> Written:
        """As :meth:`racro_pl.policy.paths.SharedPrefixPath.sample`."""
        own = model.generation_config
        # Its settings (a penalty on repetition, top-k) would be taken over where those of a call say nothing.
        model.generation_config = _bare_config(max_new_tokens, draw)
        try:
            size = group_size if self.batched else 1
            starts = [prompt for prompt in prompts for _ in range(group_size // size)]
            batches = [_write(model, prompt, size, draw) for prompt in starts]
        finally:
            model.generation_config = own
        captions = pad_sequence([row for ids, _ in batches for row in ids], True, draw.pad_id)
        logprobs = pad_sequence([row for _, drawn_with in batches for row in drawn_with], True)
        ends = frozenset(draw.ends.tolist())
        return captions, logprobs.masked_fill(~mask_to_first_end(captions, ends), 0.0)

    def _batches(self, captions: list[tuple[int, Tensor]]) -> Iterator[tuple[int, list[Tensor]]]:
        """Captions with the number of their prompt: neighbours after the same one together, or each alone."""
        if not self.batched:
            yield from ((which, [caption]) for which, caption in captions)
            return
        for which, rows in groupby(captions, key=lambda caption: caption[0]):
            yield which, [caption for _, caption in rows]


def _inputs(model: Any, prompt: Prompt, ids: Int[Tensor, "g l"], real: Bool[Tensor, "g l"]) -> dict[str, Tensor]:
    """What the model's forward takes for rows that begin with the prompt. Images stand one row's after another's."""
    types = torch.zeros_like(ids)
    types[:, : len(prompt.input_ids)] = prompt.mm_token_type_ids.to(ids)
    vision = {name: torch.cat([tensor.to(ids.device)] * len(ids)) for name, tensor in prompt.vision.items()}
    given = {"mm_token_type_ids": types, "token_type_ids": types, **vision}
    taken = signature(model.forward).parameters
    named = {name: tensor for name, tensor in given.items() if name in taken}
    return {"input_ids": ids, "attention_mask": real.to(ids), **named}


def _score(
    model: Any, prompt: Prompt, captions: list[Int[Tensor, " t"]], temperature: float, banned: Bool[Tensor, " vocab"]
) -> list[tuple[Float[Tensor, " t"], Float[Tensor, " t"]]]:
    start = prompt.input_ids.to(banned.device)
    # The last token predicts nothing: it is not forwarded. Padding is a token of text, and stands where none looks.
    ids = pad_sequence([torch.cat([start, caption[:-1]]) for caption in captions], True, int(start[-1]))
    lengths = torch.tensor([len(start) + len(caption) - 1 for caption in captions], device=ids.device)
    real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    longest = ids.shape[1] - len(start) + 1
    kept = {"logits_to_keep": longest} if "logits_to_keep" in signature(model.forward).parameters else {}
    out = model(**_inputs(model, prompt, ids, real), use_cache=False, **kept)
    logits = out.logits[:, -longest:]  # some keep all, whatever they are asked
    # Float32 copies of the logits of all captions would be the most that a step holds: made again in the backward.
    return [
        checkpoint(
            token_logprobs, row[: len(caption)], caption, banned, temperature, use_reentrant=False,
            preserve_rng_state=False,
        )
        for row, caption in zip(logits, captions, strict=True)
    ]  # fmt: skip


def _bare_config(max_new_tokens: int, draw: Draw) -> GenerationConfig:
    """Tokens are drawn from the whole distribution, which :class:`_Drawn` has brought to its temperature."""
    whole = {} if draw.temperature is None else {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    return GenerationConfig(
        do_sample=draw.temperature is not None, num_beams=1, max_new_tokens=max_new_tokens,
        eos_token_id=draw.ends.tolist(), pad_token_id=draw.pad_id, **whole,
    )  # fmt: skip


def _write(model: Any, prompt: Prompt, rows: int, draw: Draw) -> tuple[Int[Tensor, "g t"], Float[Tensor, "g t"]]:
    """Captions, and the log-probs that their tokens were drawn with (0 where greedy)."""
    start = prompt.input_ids.to(draw.banned.device).expand(rows, -1)
    drawn = _Drawn(draw)
    real = torch.ones_like(start, dtype=torch.bool)
    whole = model.generate(**_inputs(model, prompt, start, real), logits_processor=LogitsProcessorList([drawn]))
    written = whole[:, start.shape[1] :]
    return written, drawn.logprobs(written)


class _Drawn(LogitsProcessor):
    """Bans tokens, sets the temperature, and keeps the log-prob of every token that is drawn.

    A step's token shows in the next step's ids: until then the whole distribution is kept.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._distribution: Tensor | None = None
        self._told: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._tell(input_ids[:, -1])
        scores = scores.float().masked_fill(self._draw.banned, float("-inf"))
        if self._draw.temperature is None:
            return scores
        scores = scores / self._draw.temperature
        self._distribution = scores.log_softmax(dim=-1)
        return scores

    def logprobs(self, written: Int[Tensor, "g t"]) -> Float[Tensor, "g t"]:
        """Of all tokens, the last ones included."""
        self._tell(written[:, -1])
        return torch.stack(self._told, dim=1) if self._told else torch.zeros_like(written, dtype=torch.float32)

    def _tell(self, tokens: Int[Tensor, " g"]) -> None:
        if self._distribution is not None:
            self._told.append(self._distribution.gather(1, tokens[:, None])[:, 0])


def _switch_off_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in DROPOUT:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
