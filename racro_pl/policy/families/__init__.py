"""What differs between vision-language model families: one small file each, registered here."""

from racro_pl.policy.families.base import Family
from racro_pl.policy.families.qwen2_5_vl import QWEN2_5_VL
from racro_pl.policy.families.qwen3_vl import QWEN3_VL
from racro_pl.types import RacroError

FAMILIES = {family.model_type: family for family in (QWEN2_5_VL, QWEN3_VL)}


def family_of(model_type: str) -> Family:
    """The family of a Hugging Face ``model_type``.

    Raises:
        RacroError: that family has no file yet.
    """
    if model_type not in FAMILIES:
        raise RacroError(
            f"model type {model_type!r} is not supported as captioner; supported: {', '.join(sorted(FAMILIES))}. "
            "A new family is one file in racro_pl/policy/families/"
        )
    return FAMILIES[model_type]


__all__ = ["FAMILIES", "Family", "family_of"]
