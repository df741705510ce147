"""Where captions come from."""

from racro_pl.rollout.engine import RolloutEngine, RunInfo
from racro_pl.rollout.transformers_engine import TransformersEngine
from racro_pl.rollout.vllm.engine import VllmEngine
from racro_pl.rollout.vllm.protocol import RolloutError

__all__ = ["RolloutEngine", "RolloutError", "RunInfo", "TransformersEngine", "VllmEngine"]
