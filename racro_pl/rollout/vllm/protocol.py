"""What is sent to vLLM for one question. Pure: no network, no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from racro_pl.images import image_url, open_image
from racro_pl.policy.prompts import TEMPLATES, PromptEncoder
from racro_pl.policy.vision import GRIDS
from racro_pl.text.captioner_prompt import with_image_urls
from racro_pl.types import Messages, Prompt, Question, RacroError

BAN = -100.0
"""vLLM's lowest ``logit_bias``: what is left of a token's probability is below e^-100 of the others'."""


class RolloutError(RacroError):
    """The rollout server is not there, or does not do what the trainer asked of it."""


def sampling_request(
    messages: Messages,
    *,
    model: str,
    captions: int,
    max_new_tokens: int,
    temperature: float,
    banned: Sequence[int],
    eos_ids: Sequence[int],
) -> dict[str, Any]:
    """A chat completion that samples from the model's whole distribution, the banned tokens left out.

    All that a model folder's own generation settings could change (Qwen's ship top_k and a repetition penalty) is
    set here by name: sampling and log-probs have to speak of one distribution. No seed: the samples of a busy server
    depend on what else is in its batches all the same, and seeded requests are sampled one by one.

    Args:
        messages: as :func:`exact_messages` builds them.
        model: name under which the adapter is served.
        captions: captions of this question (G): in one request, so that prompt and images are processed once.
        max_new_tokens: caption length limit in tokens.
        temperature: of the sampling; 0 is greedy.
        banned: ids that must not be sampled.
        eos_ids: ids that end a caption.
    """
    return {
        "model": model,
        "messages": messages,
        "n": captions,
        "max_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logit_bias": {str(token): BAN for token in banned},
        "stop_token_ids": list(eos_ids),
        "logprobs": True,
        "return_token_ids": True,
        "stream": False,
    }


def exact_messages(question: Question, prompt: Prompt, encoder: PromptEncoder) -> Messages:
    """The captioner's chat with its images in place: one image part, so one placeholder, per image.

    Where images are patches of a grid, they are those that the trainer processed, in their final size: vLLM's processor
    then has nothing to scale, and cannot scale it differently. Elsewhere vLLM gets the picture as the trainer opens it,
    and does the same with it: the server is started with the trainer's limits.
    """
    if GRIDS in prompt.vision:
        images = processed_images(prompt, encoder.processor.image_processor)
    else:
        images = [open_image(ref) for ref in question.images]
    # Little compression: the way to the server is short, and zlib is most of the time.
    urls = [image_url(image, compress_level=1) for image in images]
    return with_image_urls(TEMPLATES[prompt.role](question.text, len(question.images)), urls)


def processed_images(prompt: Prompt, image_processor: Any) -> list[Image.Image]:
    """The pixels of a prompt: normalisation and cutting into patches undone.

    The patches of Qwen-VL's and GLM-V's processors hold (channel, frame, row, column) each, and follow each other
    merged block by merged block. Resizing works on whole numbers, so nothing is lost on the way back.
    """
    if not prompt.vision:
        return []
    pixels, grids = prompt.vision["pixel_values"], prompt.vision[GRIDS]
    merge, patch, frames = image_processor.merge_size, image_processor.patch_size, image_processor.temporal_patch_size
    mean, std = torch.tensor(image_processor.image_mean), torch.tensor(image_processor.image_std)
    images = []
    sizes = [int(grid.prod()) for grid in grids]
    for (_, high, wide), patches in zip(grids.tolist(), pixels.float().cpu().split(sizes), strict=True):
        blocks = patches.view(high // merge, wide // merge, merge, merge, 3, frames, patch, patch)
        # A still image fills all frames alike: one of them is the image.
        still = blocks[:, :, :, :, :, 0].permute(0, 2, 5, 1, 3, 6, 4).reshape(high * patch, wide * patch, 3)
        shown = ((still * std + mean) / image_processor.rescale_factor).round().clamp(0, 255)
        images.append(Image.fromarray(shown.to(torch.uint8).numpy()))
    return images
