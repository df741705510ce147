"""Where captions come from."""

from racro_pl.rollout.engine import RolloutEngine
from racro_pl.rollout.transformers_engine import TransformersEngine

__all__ = ["RolloutEngine", "TransformersEngine"]
