"""Callbacks for ``trainer.callbacks``."""

from racro_pl.training.callbacks import *  # noqa: F403
from racro_pl.training.callbacks import __all__ as __all__
