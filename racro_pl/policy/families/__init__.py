"""The families of vision-language models that are known to run on the shared-prefix path, one description each.

Models of any other family run on the plain path.
"""

from importlib.metadata import version

from packaging.version import Version

from racro_pl.policy.families.base import Family
from racro_pl.policy.families.known import KNOWN
from racro_pl.types import RacroError

FAMILIES = {family.model_type: family for family in KNOWN}


def family_of(model_type: str) -> Family:
    """The family of a Hugging Face ``model_type``, with :attr:`Family.undescribed` set where no family describes it.

    Raises:
        RacroError: it needs a newer transformers.
    """
    if model_type not in FAMILIES:
        return Family(
            model_type,
            undescribed=f"the model type {model_type!r} is not described in docs/models.md (policy.min_pixels and "
            "max_pixels do not reach its processor)",
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
