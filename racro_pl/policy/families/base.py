"""What cannot be read off a model and its processor, and so has to be said of a family."""

from dataclasses import dataclass
from typing import Literal

from racro_pl.policy.families.image_limits import ImageLimit, leave_size

TwoWay = Literal["image", "image, in windows, if the config says so", "all images"]
"""The tokens of one image, in every layer; the same in layers with a window, where the text config's
``use_bidirectional_attention`` is ``vision``; all image tokens of a prompt, across images."""


@dataclass(frozen=True)
class Family:
    """A family of models on the shared-prefix path; all else is derived (``policy/structure.py``)."""

    model_type: str
    """``config.model_type`` of the checkpoint."""
    image_limit: ImageLimit = leave_size
    """How limits on pixels are told to its image processor."""
    two_way: TwoWay | None = None
    """Which image tokens see each other both ways; None where attention is causal throughout."""
    recurrent: str | None = None
    """How the class of its recurrent layers is called, from its end; None where it has none."""
    transformers: str | None = None
    """The first release of transformers that reads it right; None where every supported one does."""
    vllm: tuple[str, ...] | str = "it was not tried"
    """Attributes of the trainer's image processor that a vLLM server has to be started with; or why vLLM cannot sample
    for the family."""
    undescribed: str | None = None
    """Why nothing is known of it, so that the plain path runs; None for a described family."""
