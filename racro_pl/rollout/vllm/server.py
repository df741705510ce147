"""A vLLM server for rollouts, started by the run itself with the flags that rollouts need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from racro_pl.policy.config import PolicySettings
from racro_pl.rollout.vllm import sleep as vllm_sleep
from racro_pl.rollout.vllm.protocol import RolloutError
from racro_pl.serving.vllm_process import VllmServer

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ``--max-lora-rank`` values that vLLM takes."""


@dataclass
class ServerSettings:
    """How to start vLLM; it ends with the run."""

    python: str | None = None
    """Interpreter of the environment that holds vLLM; this one when null."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 0
    """0 picks a free one; runs on several devices need a fixed one."""
    gpu_memory_utilization: float | None = None
    """Share of the GPU's memory to take; vLLM's default (which leaves a trainer no room beside it) when null."""
    max_model_len: int | None = None
    """Longest prompt and caption together, in tokens; the model's own when null."""
    extra_args: Sequence[str] = ()
    """Further arguments of the vLLM command line."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables to add to the server's environment, such as CUDA_VISIBLE_DEVICES."""
    start_timeout_s: float = 600.0
    """Seconds to wait for the server to be healthy."""


def rollout_server(
    settings: ServerSettings, policy: PolicySettings, log_path: Path | None, sleep: bool = False
) -> VllmServer:
    """The server that fits a policy: its base weights, its image limits, room for its adapter. Not started yet.

    Args:
        settings: how to start it.
        policy: what it is for.
        log_path: file for its output.
        sleep: it has to be able to sleep.

    Raises:
        RolloutError: the policy has no adapter, or one of a rank beyond what vLLM serves.
    """
    return VllmServer(
        policy.path,
        python=settings.python,
        host=settings.host,
        port=settings.port,
        served_model_name="captioner",
        max_model_len=settings.max_model_len,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        extra_args=[*required_arguments(policy), *([vllm_sleep.ARGUMENT] if sleep else []), *settings.extra_args],
        env={
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            **(vllm_sleep.ENVIRONMENT if sleep else {}),
            **settings.env,
        },
        start_timeout_s=settings.start_timeout_s,
        log_path=log_path,
    )


def required_arguments(policy: PolicySettings) -> list[str]:
    """vLLM's arguments without which it could not serve a policy's rollouts."""
    if policy.lora is None:
        raise RolloutError(
            "model.policy.lora is null: VllmEngine pushes adapters, not whole models; train an adapter, or sample "
            "with racro_pl.rollout.TransformersEngine"
        )
    rank = next((rank for rank in LORA_RANKS if rank >= policy.lora.rank), None)
    if rank is None:
        raise RolloutError(f"model.policy.lora.rank is {policy.lora.rank}; vLLM serves ranks up to {LORA_RANKS[-1]}")
    # Images arrive in their final size. The lower limit is out of their way; rounding up to whole patches at the
    # trainer's lower limit may pass its upper one when the two are close.
    pixels = {"min_pixels": 1, "max_pixels": max(policy.max_pixels, 2 * policy.min_pixels)}
    return [
        "--dtype", policy.dtype, "--enable-lora", "--max-lora-rank", str(rank),
        # After temperature and bans, as the trainer takes them; vLLM's default is before both.
        "--logprobs-mode", "processed_logprobs", "--mm-processor-kwargs", json.dumps(pixels),
    ]  # fmt: skip
