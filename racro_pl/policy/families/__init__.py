"""The families of vision-language models that are known to run on the shared-prefix path, one description each."""

from importlib.metadata import version

from packaging.version import Version

from racro_pl.policy.families.base import Family
from racro_pl.policy.families.known import KNOWN
from racro_pl.types import RacroError

FAMILIES = {family.model_type: family for family in KNOWN}


def family_of(model_type: str) -> Family:
    """The family of a Hugging Face ``model_type``.

    Raises:
        RacroError: that family is not described, or needs a newer transformers.
    """
    if model_type not in FAMILIES:
        raise RacroError(
            f"model type {model_type!r} is not supported as captioner; supported: {', '.join(sorted(FAMILIES))}. "
            "A new family is a description in racro_pl/policy/families/known.py and a line in the tests' matrix"
        )
    family = FAMILIES[model_type]
    installed = version("transformers")
    if family.transformers is not None and Version(installed) < Version(family.transformers):
        raise RacroError(
            f"model type {model_type!r} needs transformers {family.transformers} or newer; {installed} is installed: "
            f'pip install "transformers>={family.transformers}"'
        )
    return family


__all__ = ["FAMILIES", "Family", "family_of"]
