"""The adapter's way from the trainer to a running vLLM: a folder, a load, an unload. The base stays where it is."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from racro_pl.policy.captioner import Captioner
from racro_pl.rollout.vllm.protocol import RolloutError
from racro_pl.serving.calls import ServerCalls
from racro_pl.serving.chat_client import Fault

POLL_S = 0.1
SHORT_S = 15.0
"""Seconds for requests that need no computing."""
HINT = (
    "vLLM has to run with --enable-lora, --max-lora-rank of at least model.policy.lora.rank and the environment "
    "variable VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, and has to see the run's folder under the same path"
)


class AdapterPusher:
    """Keeps exactly one version of the adapter loaded, under a name that no other weights ever have.

    vLLM caches prefixes by adapter name: a name that were used twice would bring back keys and values of the old
    weights. The trainer and the server have to share a file system.

    Args:
        folder: where versions are written; on a file system that the server sees too.
        run_id: the same on all ranks of a run, and of no other run.
        rank: global rank 0 pushes, the others wait until it has.
    """

    def __init__(self, calls: ServerCalls, folder: Path, run_id: str, rank: int) -> None:
        self._calls = calls
        self._folder = folder.absolute()
        self._run_id = run_id
        self._rank = rank
        self._loaded: str | None = None

    def push(self, captioner: Captioner, version: int) -> str:
        """Have the server load the adapter as it is now, and forget the version before.

        Args:
            version: number of optimizer steps it has seen.

        Returns:
            The name that requests use.

        Raises:
            RolloutError: the server is away, refuses the adapter, or (other ranks) rank 0 has not pushed in time.
        """
        name = f"racro-{self._run_id}-{version}"
        if self._rank == 0:
            self._write(captioner, name)
            self._load(name)
        else:
            self._wait_for(name)
        previous, self._loaded = self._loaded, name
        if previous is not None:
            self._forget(previous)
        return name

    def close(self, unload: bool) -> None:
        """Unload and delete everything; silent when the server is gone already."""
        if self._loaded is not None and unload:
            self._forget(self._loaded)
        self._loaded = None
        if self._rank == 0:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, captioner: Captioner, name: str) -> None:
        # Renamed when whole: the server never reads half an adapter.
        partial = self._folder / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        captioner.save(partial)
        partial.replace(self._folder / name)

    def _load(self, name: str) -> None:
        body = {"lora_name": name, "lora_path": str(self._folder / name)}
        try:
            self._calls.call("POST", "load_lora_adapter", body, plain=True)
        except Fault as fault:
            # The answer to an earlier attempt was lost, the adapter was not: the name is ours alone.
            if "already been loaded" in fault.detail:
                return
            raise RolloutError(f"vLLM at {self._calls.where} did not load the adapter ({fault}): {HINT}") from None

    def _forget(self, name: str) -> None:
        if self._rank != 0:
            return
        # An adapter that stays loaded takes a little memory; if the server is lost, the next request says so.
        with contextlib.suppress(Fault):
            self._calls.call("POST", "unload_lora_adapter", {"lora_name": name}, plain=True, limit_s=SHORT_S)
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def _wait_for(self, name: str) -> None:
        deadline = time.monotonic() + self._calls.deadline_s
        while name not in served_models(self._calls):
            if time.monotonic() > deadline:
                raise RolloutError(
                    f"rank 0 has not loaded the adapter {name!r} into {self._calls.where} within "
                    f"{self._calls.deadline_s:g} s; its output says why"
                )
            time.sleep(POLL_S)


def served_models(calls: ServerCalls) -> dict[str, tuple[str | None, int | None]]:
    """Names that the server serves, each with the model it builds on (None for a base) and its context in tokens.

    Raises:
        RolloutError: the server is away or is none.
    """
    try:
        data = calls.call("GET", "models", limit_s=SHORT_S)
    except Fault as fault:
        raise RolloutError(
            f"no rollout server at {calls.where} ({fault}): start vLLM there, or correct model.rollout's url"
        ) from None
    try:
        served = {entry["id"]: (entry.get("parent"), entry.get("max_model_len")) for entry in data["data"]}
        whole = all(isinstance(name, str) for name in served)
        whole = whole and all(context is None or type(context) is int for _, context in served.values())
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise RolloutError(f"{calls.where}/models is not a list of models: is this an OpenAI-compatible server?")
    return served
