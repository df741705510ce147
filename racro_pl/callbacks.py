"""Callbacks for ``trainer.callbacks``, and a logger for ``trainer.logger``."""

from racro_pl.training.callbacks import *  # noqa: F403
from racro_pl.training.callbacks import __all__ as __all__
