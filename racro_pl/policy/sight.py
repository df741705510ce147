"""Does the captioner see? What it says of a caption must depend on the pixels.

A forward that does not know an argument may swallow it (``**kwargs``): the captioner then writes from the question
alone, and trains without complaint. So what is passed is looked up in the model's signature, and the log-probs of a
caption after a question's image are compared with those after other pixels.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from racro_pl.policy.captioner import Captioner
from racro_pl.types import Prompt, RacroError

_NOISE = 10.0
"""Other pixels have to change log-probs by more than this times what a repetition of the same pass changes."""
_CAPTION = "The picture shows"


def check_sight(captioner: Captioner, prompt: Prompt) -> float:
    """Refuse a captioner that says the same whatever it is shown. Draws no number of the global random stream.

    Three passes without gradient over one prompt, as policy and not as reference; under sharding all ranks make them.

    Args:
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
    shown = replace(prompt, vision={**prompt.vision, "pixel_values": pixels})
    mask = torch.ones_like(ids, dtype=torch.bool)
    return captioner.frozen_logprobs([shown], torch.tensor([0]), ids, mask, reference=False)
