"""Does the captioner see? What it says of a caption must depend on the pixels.

A forward that does not know an argument may swallow it (``**kwargs``): the captioner then writes from the question
alone, and trains without complaint. So what is passed is looked up in the model's signature, and the log-probs of a
caption after a question's image are compared with those after other pixels.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from racro_pl.types import Prompt, RacroError

if TYPE_CHECKING:
    from racro_pl.policy.captioner import Captioner

PASSED = ("input_ids", "position_ids", "mm_encoder_outputs")
"""What :class:`Captioner` passes to a model itself; all else is for its layers."""
_NOISE = 10.0
"""Other pixels have to change log-probs by more than this times what a repetition of the same pass changes."""
_CAPTION = "The picture shows"


def check_forward(model: Any) -> None:
    """Refuse a model whose forward does not name what is passed to it.

    Args:
        model: the part of a transformers model that a captioner calls (``model.model``).

    Raises:
        RacroError: names the arguments that it would swallow.
    """
    known = inspect.signature(model.forward).parameters
    swallowed = [name for name in PASSED if name not in known]
    if swallowed:
        import transformers

        raise RacroError(
            f"{type(model).__name__} of transformers {transformers.__version__} does not take {', '.join(swallowed)}: "
            "images or positions would be ignored; expected transformers >= 5.18"
        )


def check_sight(captioner: Captioner, prompt: Prompt) -> float:
    """Refuse a captioner that says the same whatever it is shown. Draws no number of the global random stream.

    Three passes without gradient over one prompt, as policy and not as reference; under sharding all ranks make them.

    Args:
        captioner: with its weights.
        prompt: of a question with an image.

    Returns:
        The largest difference of a token's log-prob between the image and noise of the same size, in nats.

    Raises:
        RacroError: there is none, beyond what a repetition of the pass differs by.
    """
    assert prompt.pixel_values is not None
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(prompt.pixel_values.shape, generator=generator).to(prompt.pixel_values.dtype)
    own, again, other = (_logprobs(captioner, pixels, prompt) for pixels in (prompt.pixel_values,) * 2 + (noise,))
    difference, repetition = float((own - other).abs().max()), float((own - again).abs().max())
    # Written so that NaN fails too.
    if not difference > _NOISE * repetition:
        raise RacroError(
            f"the captioner does not see: log-probs of a caption after an image and after noise differ by "
            f"{difference:.2g} nats, as those of one image twice do ({repetition:.2g}). Expected a model whose forward "
            "uses the image features that it is given: is transformers the version that pyproject.toml asks for?"
        )
    return difference


def _logprobs(captioner: Captioner, pixels: torch.Tensor, prompt: Prompt) -> torch.Tensor:
    ids = captioner.encoder.tokenizer(_CAPTION, add_special_tokens=False, return_tensors="pt")["input_ids"]
    # A prompt equals only itself: nothing is remembered of these images.
    shown = replace(prompt, pixel_values=pixels)
    mask = torch.ones_like(ids, dtype=torch.bool)
    return captioner.frozen_logprobs([shown], torch.tensor([0]), ids, mask, reference=False)
