"""Small random models of many families, with their own processors, saved as ordinary folders.

Each is two layers deep, its weights large enough that positions, images and windows show in the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from tests.helpers.families import patches, special, tiles
from tests.helpers.families.words import Parts

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
BUILDERS: dict[str, Callable[[str], Parts]] = {
    **dict.fromkeys(QWEN, patches.qwen),
    **dict.fromkeys(("glm4v", "glm46v"), patches.glm),
    "internvl": tiles.internvl,
    **dict.fromkeys(("smolvlm", "idefics3"), tiles.idefics),
    **dict.fromkeys(("llava", "llava_next", "llava_onevision"), tiles.llava),
    "mistral3": special.mistral3,
    "gemma3": special.gemma3,
    "gemma4": special.gemma4,
    "gemma4-small": special.gemma4,
    "molmo2": special.molmo2,
    "lfm2_vl": special.lfm2_vl,
    "minicpmv4_6": special.minicpm,
}
UNDESCRIBED = {"vipllava": tiles.llava}
"""A real class that no family describes, with dropout in its language model."""


def save_small_family(folder: Path, kind: str, seed: int = 0, **of_text: Any) -> Path:
    """A random model of ``kind`` (a ``model_type``) with its processor.

    Args:
        folder: to be written.
        kind: one of :data:`BUILDERS`: a ``model_type``, or one and a variant; or of :data:`UNDESCRIBED`.
        seed: of the weights.
        of_text: fields of the text config to set.
    """
    config, processor = (BUILDERS | UNDESCRIBED)[kind](kind)
    for name, value in of_text.items():
        setattr(config.text_config, name, value)
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 0.4 if "embed" in name else weight[0].numel() ** -0.5)
            elif not torch.isfinite(weight).all():  # made for a checkpoint to fill
                weight.normal_(0.0, 0.1)
    model.generation_config.eos_token_id = [0, 2]
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
