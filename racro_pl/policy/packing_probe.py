"""Does the shared-prefix path compute what the model itself computes? One comparison on the weights at hand.

The tests hold this for small models of every described family. A new version of transformers, or a checkpoint whose
config switches on what its family's description does not know, would show here and not in a run's curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor

from racro_pl.images import encoded
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.paths import SharedPrefixPath
from racro_pl.policy.plain_path import PlainPath
from racro_pl.policy.structure import decoder_of
from racro_pl.terminal import get_logger
from racro_pl.types import ImageRef, Prompt, Question, RacroError

log = get_logger(__name__)

SIZES = ((112, 112), (168, 112))
"""Width and height of the two pictures; ``policy.min_pixels`` may scale them up."""
TILE = 14
"""Pixels of a tile's edge: about a patch."""
CAPTIONS = ("The picture shows", "A", "It shows a red circle")
DRAWN_CAPTIONS, DRAWN_TOKENS = 2, 4
"""What the plain path is tried with: captions of each prompt, tokens of each caption."""
ROUNDINGS = 2.0
"""How many times what one rounding unit in the embeddings changes two right paths may be apart. Measured on small
models: of all families with 2 layers 0 to 0.8 times, of five with 32 layers 0.1 to 0.9, in float32, bfloat16, NF4."""
FLOAT32_LEAST, LOW_PRECISION_LEAST = 1e-5, 0.01
"""Never less than this (nats a token); the second one in bfloat16 and TF32. Right paths of all
families with 2 to 4 layers: up to 1e-6 and 0.008."""


@dataclass(frozen=True)
class Packing:
    """What the probe found."""

    difference: float
    """Mean difference of a caption token's log-prob between the two paths, in nats; NaN where one failed."""
    limit: float
    """How much of it rounding explains: measured on this model."""
    fault: str | None
    """Why the shared-prefix path is not to be trusted; None where it is."""


def probe_packing(captioner: Captioner, prompts: Sequence[Prompt] = (), *, reference: bool = False) -> Packing:
    """Compare log-probs of three captions on the two paths. Without gradient; no random number is drawn.

    Args:
        captioner: on the shared-prefix path, with its weights; under sharding all ranks call this.
        prompts: one or two, with images; drawn ones where none is given.
        reference: as the reference, which no training changes: so that a resumed run finds what the first one found.
    """
    packed = captioner.path
    assert isinstance(packed, SharedPrefixPath)
    prompts = prompts or drawn_prompts(captioner)
    token_ids, mask = _captions(captioner)
    inputs = (prompts, torch.arange(len(token_ids)) % len(prompts), token_ids, mask)
    with packed.switched_off():
        captioner.path = PlainPath()
        try:
            expected = captioner.frozen_logprobs(*inputs, reference=reference)
            limit = _limit(captioner, inputs, expected, reference)
        finally:
            captioner.path = packed
    try:
        found = captioner.frozen_logprobs(*inputs, reference=reference)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever another release of transformers changed: the plain path has just run
        return Packing(float("nan"), limit, f"the shared-prefix path fails: {str(error)[:300] or type(error).__name__}")
    difference = _mean_difference(found, expected, mask)
    if difference <= limit:
        return Packing(difference, limit, None)
    return Packing(
        difference,  # NaN comes here too
        limit,
        f"log-probs on the shared-prefix path differ from the model's own by {difference:.2g} nats a token, and "
        f"rounding explains {limit:.2g}; the model does something that the description of "
        f"{captioner.family.model_type!r} does not know",
    )


def check_plain(captioner: Captioner) -> float:
    """On the plain path, a caption's tokens must have the log-probs that they were drawn with, one by one.

    In a class whose forward reads a whole row both ways, or wants more than a row's tokens and images, they do not.
    Where they do with one caption at a time only, that is how the path goes on. The global random stream is left as it
    is.

    Returns:
        The mean difference in nats.

    Raises:
        RacroError: it is more than rounding explains.
    """
    path = captioner.path
    assert isinstance(path, PlainPath)
    prompts = drawn_prompts(captioner)
    if path.batched:
        try:
            difference, limit = _drawn_and_scored(captioner, path, prompts)
            if difference <= limit:
                return difference
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a class makes of copies: a row alone shows whether it is at fault
            log.debug("copies of a prompt in one batch fail: %s", error)
        path.batched = False
    difference, limit = _drawn_and_scored(captioner, path, prompts)
    # Written so that NaN fails too.
    if not difference <= limit:
        raise RacroError(
            f"{captioner.family.model_type}: log-probs of captions differ by {difference:.2g} nats a token from those "
            f"that they were drawn with, and rounding explains {limit:.2g}: read as a whole, a caption is not what the "
            "model writes token by token. Expected a causal model; take another captioner"
        )
    return difference


def takes_batches(captioner: Captioner) -> bool:
    """Whether the captions of a prompt go through the model together."""
    return not isinstance(captioner.path, PlainPath) or captioner.path.batched


def _drawn_and_scored(captioner: Captioner, path: PlainPath, prompts: Sequence[Prompt]) -> tuple[float, float]:
    """How far captions as the path draws and scores them are from rows that stand alone, and what rounding explains."""
    batched, device = path.batched, captioner.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        written = captioner.generate(prompts, DRAWN_CAPTIONS, DRAWN_TOKENS, 1.0)
    inputs = (prompts, torch.arange(len(prompts)).repeat_interleave(DRAWN_CAPTIONS), written.token_ids, written.mask)
    scored = captioner.frozen_logprobs(*inputs, reference=False)
    path.batched = False
    try:
        alone = captioner.frozen_logprobs(*inputs, reference=False)
        limit = _limit(captioner, inputs, alone, reference=False)
    finally:
        path.batched = batched
    differences = torch.stack([(found - alone).abs()[written.mask].mean() for found in (written.logprobs, scored)])
    return float(differences.max()), limit  # NaN if one is


Inputs = tuple[Sequence[Prompt], Tensor, Tensor, Tensor]
"""What log-probs are taken of: prompts, the prompt of each caption, captions, mask."""


def _limit(captioner: Captioner, inputs: Inputs, expected: Tensor, reference: bool) -> float:
    """The largest mean difference that rounding explains, by what the captioner computes in.

    Rounding grows with depth, and far more in some layers (linear attention) than in others. What becomes of one
    rounding unit in what the decoder reads tells how much.

    Args:
        captioner: on the plain path.
        inputs, expected: what log-probs were taken of, and these.
    """
    model: Any = captioner.parts()[0]
    exact = (captioner.compute_dtype or model.dtype) == torch.float32
    exact &= torch.get_float32_matmul_precision() == "highest"
    nudge = partial(_nudge, torch.finfo(torch.float32 if exact else torch.bfloat16).eps)
    hooks = [decoder_of(part).register_forward_pre_hook(nudge, with_kwargs=True) for part in captioner.parts()]
    try:
        found = captioner.frozen_logprobs(*inputs, reference=reference)
    finally:
        for hook in hooks:
            hook.remove()
    least = FLOAT32_LEAST if exact else LOW_PRECISION_LEAST
    return max(least, ROUNDINGS * _mean_difference(found, expected, inputs[-1]))


def _nudge(unit: float, decoder: Any, given: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any] | None:
    """One rounding unit on every second number: norms would undo it on all."""
    embeddings = options.get("inputs_embeds")
    if embeddings is None:
        return None
    every_second = torch.arange(embeddings.shape[-1], device=embeddings.device) % 2
    return given, {**options, "inputs_embeds": embeddings * (1 + unit * every_second).to(embeddings.dtype)}


def _mean_difference(one: Tensor, other: Tensor, mask: Tensor) -> float:
    return float((one - other).abs()[mask.to(one.device)].mean())


def drawn_prompts(captioner: Captioner) -> list[Prompt]:
    """Two prompts with a picture each, that no image cache will know again."""
    return [captioner.encoder.encode(mosaic_question(*size)) for size in SIZES]


def mosaic_question(width: int, height: int) -> Question:
    """A question about a picture of coloured tiles: no two parts of it are alike, so what sees which shows."""
    generator = torch.Generator().manual_seed(0)
    shape = (height // TILE, width // TILE, 3)
    colours = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    picture = Image.fromarray(colours.numpy()).resize((width, height), Image.Resampling.NEAREST)
    return Question("mosaic", (ImageRef(data=encoded(picture)),), "what is the color of circle ?", "red", "text")


def _captions(captioner: Captioner) -> tuple[Int[Tensor, "3 t"], Bool[Tensor, "3 t"]]:
    tokenizer, banned = captioner.encoder.tokenizer, captioner.banned.cpu()
    written = int((~banned).nonzero()[0])
    rows = []
    for text in CAPTIONS:
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
        rows.append(torch.where(banned[ids], written, ids))  # a word that a small vocabulary does not know
    lengths = torch.tensor([len(row) for row in rows])
    token_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return token_ids, torch.arange(token_ids.shape[1]) < lengths[:, None]
