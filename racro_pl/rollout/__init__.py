"""Where captions come from."""

from racro_pl.rollout.engine import RolloutEngine, RunInfo
from racro_pl.rollout.transformers_engine import TransformersEngine
from racro_pl.rollout.vllm_engine import VllmEngine

__all__ = ["RolloutEngine", "RunInfo", "TransformersEngine", "VllmEngine"]
