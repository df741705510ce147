"""A vLLM server for rollouts, started by the run itself with the flags that rollouts need."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from racro_pl.policy.config import PolicySettings
from racro_pl.policy.families import FAMILIES
from racro_pl.policy.families.image_limits import limit_area
from racro_pl.policy.loading import load_encoder, policy_family
from racro_pl.rollout.engine import RunInfo
from racro_pl.rollout.vllm.protocol import RolloutError
from racro_pl.serving.addresses import KEY_VARIABLE, socket_path
from racro_pl.serving.calls import ServerCalls
from racro_pl.serving.chat_client import Fault
from racro_pl.serving.network import is_local_address
from racro_pl.serving.vllm_process import ServerSettings, VllmServer

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ``--max-lora-rank`` values that vLLM takes."""
SLEEP_ARGUMENT = "--enable-sleep-mode"
SLEEP_ENVIRONMENT = {"VLLM_SERVER_DEV_MODE": "1"}
"""vLLM offers the two endpoints under its development mode only."""


def start_server(settings: ServerSettings, run: RunInfo, sleep: bool) -> VllmServer:
    """Start a run's own server; on other ranks than the first, wait until that one has.

    Raises:
        RolloutError: the settings do not fit the run.
        VllmError: it did not become healthy.
    """
    server = rollout_server(settings, run, sleep)
    if run.rank == 0:
        server.start()
    else:
        server.wait_for_other_process()
    return server


def rollout_server(settings: ServerSettings, run: RunInfo, sleep: bool = False) -> VllmServer:
    """The server that fits a run: its base weights, its image limits, room for its adapter. Not started yet.

    It listens on a Unix socket, or with a key: ``/v1/load_lora_adapter`` makes it read any folder.

    Raises:
        RolloutError: the settings do not fit the run; its policy has no adapter, or one of a rank beyond what vLLM
            serves.
    """
    _check_address(settings, run, sleep)
    policy = run.policy
    own = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"} | (SLEEP_ENVIRONMENT if sleep else {})
    arguments = [*required_arguments(policy), *([SLEEP_ARGUMENT] if sleep else []), *settings.extra_args]
    return VllmServer(
        policy.path,
        replace(settings, extra_args=arguments, env={**own, **settings.env}),
        served_model_name="captioner",
        log_path=run.folder / "vllm-rollout.log",
        uds=socket_path(run.run_id) if settings.host is None else None,
        api_key=given_key() or (run.key if settings.host is not None else None),
    )


def given_key() -> str | None:
    """The key that the user has given vLLM and its clients."""
    return os.environ.get(KEY_VARIABLE) or None


def announce_key(url: str) -> None:
    """Say once where the user's key is going, when that is another machine; and when it goes there unencrypted."""
    parts = urlsplit(url)
    if is_local_address(parts.hostname or ""):
        return
    rank_zero_info(f"rollout: the key in {KEY_VARIABLE} is sent to {parts.hostname}")
    if parts.scheme == "http":
        rank_zero_warn(f"rollout: the key in {KEY_VARIABLE} is sent to {parts.hostname} unencrypted (http)")


def _check_address(settings: ServerSettings, run: RunInfo, sleep: bool) -> None:
    server = "model.rollout's server"
    if settings.host is None:
        if settings.port:
            raise RolloutError(
                f"{server} has port {settings.port} and no host: without a host it listens on a Unix socket that only "
                "this run can reach; remove port, or set host as well"
            )
        if run.nodes > 1:
            raise RolloutError(
                f"{run.nodes} nodes share one rollout server, and a Unix socket reaches only its own: set host (the "
                f"first node's address) and port in {server}, and export one {KEY_VARIABLE} on all nodes"
            )
        return
    if run.ranks > 1 and settings.port == 0:
        raise RolloutError(f"several ranks share one rollout server: set a fixed port beside host in {server}")
    if run.nodes > 1 and (is_local_address(settings.host) or settings.host in ("0.0.0.0", "::")):
        raise RolloutError(
            f"{server} has host {settings.host}, where {run.nodes} nodes do not find it: set the first node's address"
        )
    if sleep:
        raise RolloutError(
            f"{server} has a host, and sleep: true opens vLLM's development endpoints, which ask for no key: remove "
            "host and port, so that it listens on a Unix socket"
        )


def check_family(policy: PolicySettings) -> None:
    """Refuse a captioner whose images and prompts the engine does not know how to send.

    Raises:
        RolloutError: its family says why vLLM cannot sample for it.
    """
    family = policy_family(policy)
    if isinstance(family.vllm, str):
        served = ", ".join(sorted(name for name, known in FAMILIES.items() if not isinstance(known.vllm, str)))
        raise RolloutError(
            f"model.policy.path is of the family {family.model_type}, for which VllmEngine cannot sample: "
            f"{family.vllm}. It takes {served}; sample with racro_pl.rollout.TransformersEngine"
        )


def required_arguments(policy: PolicySettings) -> list[str]:
    """vLLM's arguments without which it could not serve a policy's rollouts."""
    if policy.lora is None:
        raise RolloutError(
            "model.policy.lora is null: VllmEngine pushes adapters, not whole models; train an adapter, or sample "
            "with racro_pl.rollout.TransformersEngine"
        )
    if policy.lora.experts:
        raise RolloutError(
            "model.policy.lora.experts is true: whether vLLM adapts stacked experts as PEFT's target_parameters do was "
            "not tried; set it to false, or sample with racro_pl.rollout.TransformersEngine"
        )
    rank = next((rank for rank in LORA_RANKS if rank >= policy.lora.rank), None)
    if rank is None:
        raise RolloutError(f"model.policy.lora.rank is {policy.lora.rank}; vLLM serves ranks up to {LORA_RANKS[-1]}")
    return [
        "--dtype", policy.dtype, "--enable-lora", "--max-lora-rank", str(rank),
        # After temperature and bans, as the trainer takes them; vLLM's default is before both.
        "--logprobs-mode", "processed_logprobs",
        "--mm-processor-kwargs", json.dumps(processor_options(policy)),
    ]  # fmt: skip


def processor_options(policy: PolicySettings) -> dict[str, Any]:
    """What the server's image processor is told, so that it makes of a picture what the trainer's makes of it."""
    family = policy_family(policy)
    if family.image_limit is limit_area:
        # Images arrive in their final size. The lower limit is out of their way; rounding up to whole patches at the
        # trainer's lower limit may pass its upper one when the two are close.
        return {"min_pixels": 1, "max_pixels": max(policy.max_pixels, 2 * policy.min_pixels)}
    if isinstance(family.vllm, str):
        return {}  # refused by check_family
    ours = load_encoder(policy).processor.image_processor
    found = {name: getattr(ours, name) for name in family.vllm}
    return {name: dict(value) if name == "size" else value for name, value in found.items()}


class Sleeper:
    """Lets the server sleep while the trainer learns: level 1, weights in the host's memory, KV cache dropped."""

    def __init__(self, calls: ServerCalls) -> None:
        self._calls = calls
        self._root = calls.url.removesuffix("/v1")
        self._asleep = False

    def sleep(self) -> None:
        """Give the GPU's memory back. Nothing may be in flight.

        Raises:
            RolloutError: the server is away or does not offer it.
        """
        self._post("sleep?level=1")
        self._asleep = True

    def wake(self) -> None:
        """Ready for sampling again; does nothing when it is awake.

        Raises:
            RolloutError: the server is away.
        """
        if self._asleep:
            # PyTorch keeps what a step has freed, up to its peak: the server would find the card full.
            torch.cuda.empty_cache()
            self._post("wake_up")
            self._asleep = False

    def _post(self, what: str) -> None:
        try:
            self._calls.call("POST", f"{self._root}/{what}", plain=True)
        except Fault as fault:
            hint = ""
            if fault.kind in ("HTTP 404", "HTTP 405"):
                [(name, value)] = SLEEP_ENVIRONMENT.items()
                needed = f"{SLEEP_ARGUMENT} and the environment variable {name}={value}"
                hint = f": sleep: true needs a server started with {needed}"
            raise RolloutError(f"vLLM at {self._calls.where} did not answer POST /{what} ({fault}){hint}") from None
