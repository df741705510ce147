"""What cannot be read off a model and its processor, and so has to be said of a family."""

from dataclasses import dataclass

from racro_pl.policy.families.image_limits import ImageLimit, leave_size


@dataclass(frozen=True)
class Family:
    """A family of models on the shared-prefix path; all else is derived (``policy/structure.py``)."""

    model_type: str
    """``config.model_type`` of the checkpoint."""
    image_limit: ImageLimit = leave_size
    """How limits on pixels are told to its image processor."""
