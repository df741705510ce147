"""Sleep and waking of a vLLM server that shares the trainer's GPU."""

from __future__ import annotations

from racro_pl.rollout.vllm.protocol import RolloutError
from racro_pl.serving.calls import Fault, ServerCalls

ARGUMENT = "--enable-sleep-mode"
ENVIRONMENT = {"VLLM_SERVER_DEV_MODE": "1"}
"""vLLM offers the two endpoints under its development mode only."""


class Sleeper:
    """Lets the server sleep while the trainer learns: level 1, weights in the host's memory, KV cache dropped.

    Args:
        calls: to the server.
    """

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
            self._post("wake_up")
            self._asleep = False

    def _post(self, what: str) -> None:
        try:
            self._calls.call("POST", f"{self._root}/{what}", plain=True)
        except Fault as fault:
            hint = ""
            if fault.kind in ("HTTP 404", "HTTP 405"):
                environment = " ".join(f"{name}={value}" for name, value in ENVIRONMENT.items())
                hint = (
                    f": sleep: true needs a server started with {ARGUMENT} and the environment variable {environment}"
                )
            raise RolloutError(f"vLLM at {self._calls.where} did not answer POST /{what} ({fault}){hint}") from None
