"""The few facts that the trainer needs about a family of models."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Names inside a model of one family, as transformers spells them."""

    model_type: str
    """``config.model_type`` of the checkpoint."""
    vision_prefix: str
    """Module path of the vision tower."""
    lora_targets: str
    """Regular expression that matches, as a whole, the linear layers of the language model."""
    vision_token_fields: tuple[str, ...]
    """Fields of the config that hold the ids of vision tokens: a caption must never contain one."""
