"""The module to train, and the sections of its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from racro_pl.lazy import lazy_names

if TYPE_CHECKING:
    from racro_pl.policy.config import LoraSettings, PolicySettings
    from racro_pl.training.module import RacroModule
    from racro_pl.training.settings import ObjectiveSettings

__all__ = ["LoraSettings", "ObjectiveSettings", "PolicySettings", "RacroModule"]

__getattr__ = lazy_names(
    __name__,
    {
        "racro_pl.policy.config": "LoraSettings PolicySettings",
        "racro_pl.training.settings": "ObjectiveSettings",
        "racro_pl.training.module": "RacroModule",
    },
)
