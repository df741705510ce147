"""Modules that configurations of earlier releases name, and where their classes are today."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from racro_pl.terminal import get_logger

MOVED = {
    "racro_pl.data.readers.figures": "racro_pl.data.readers.worlds",
    "racro_pl.data.readers.reckoning": "racro_pl.data.readers.worlds",
    "racro_pl.loggers": "racro_pl.callbacks",
    "racro_pl.policy.image_cache": "racro_pl.policy.vision",
    "racro_pl.reward.rewarder": "racro_pl.reward.reward_function",
    "racro_pl.rollout.vllm_engine": "racro_pl.rollout.vllm.engine",
    "racro_pl.rollout.vllm_server": "racro_pl.rollout.vllm.server",
    "racro_pl.training.checkpoints": "racro_pl.training.checkpointing.io",
    "racro_pl.training.continuing": "racro_pl.training.checkpointing.resume_logs",
    "racro_pl.training.preflight": "racro_pl.training.callbacks.preflight",
    "racro_pl.training.run_checkpoint": "racro_pl.training.checkpointing.callback",
    "racro_pl.training.sharding": "racro_pl.training.strategy",
    "racro_pl.training.vllm_callback": "racro_pl.training.callbacks.vllm_server",
    "racro_pl.training.watch": "racro_pl.training.callbacks.caption_watch",
}
"""Old module to today's: ``class_path: racro_pl.training.watch.CaptionWatch`` keeps working."""


def follow_moved(value: Any) -> None:
    """Make the old modules that a setting names importable, with one warning for each.

    Args:
        value: of a setting: plain values, lists, mappings.
    """
    if isinstance(value, Mapping):
        for item in value.values():
            follow_moved(item)
    elif isinstance(value, list | tuple):
        for item in value:
            follow_moved(item)
    elif isinstance(value, str):
        old, _, name = value.rpartition(".")
        if old in MOVED and old not in sys.modules:
            sys.modules[old] = import_module(MOVED[old])
            get_logger(__name__).warning("%s is now %s.%s; please write that", value, MOVED[old], name)
