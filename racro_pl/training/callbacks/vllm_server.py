"""A Lightning callback that runs the reasoner's vLLM server for as long as the trainer runs."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from racro_pl.pretrained.folder import check_served
from racro_pl.serving.addresses import is_local_address, issue_key, withdraw_key
from racro_pl.serving.vllm_process import VllmError, VllmServer


class VllmReasonerServer(Callback):
    """Starts a vLLM server before the run checks its reasoner, and ends it with the run, however that ends.

    Global rank 0 starts it; the other ranks wait until it is healthy. Point ``HttpReasoner`` at
    ``http://127.0.0.1:PORT/v1``. On several nodes start servers with ``racro-pl serve reasoner`` instead.

    Requests need a key: that of ``VLLM_API_KEY`` where it is set, else one made for this run. ``HttpReasoner`` sends
    it by itself to this address, and to no other; it stands in no argument, file or log.

    Args:
        model: model folder, or hub id.
        python: interpreter of the environment that holds vLLM; this one when None.
        host: address to listen on.
        port: fixed, since the reasoner's URL in the configuration names it.
        served_model_name: name that requests use; the folder's name, or the hub id, when None.
        max_model_len: longest prompt and answer together, in tokens; the model's own when None.
        gpu_memory_utilization: share of the GPU's memory to take; vLLM's default when None. The default leaves no
            room for a trainer on the same GPU.
        extra_args: further arguments of the vLLM command line.
        env: variables to add to the server's environment, such as CUDA_VISIBLE_DEVICES.
        start_timeout_s: seconds to wait for the server to be healthy, on every rank.
        log_path: file for the server's output; ``vllm.log`` in the run folder when None.
    """

    def __init__(
        self,
        model: str,
        python: str | None = None,
        host: str = "127.0.0.1",
        port: int = 8000,
        served_model_name: str | None = None,
        max_model_len: int | None = None,
        gpu_memory_utilization: float | None = None,
        extra_args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        start_timeout_s: float = 600.0,
        log_path: str | None = None,
    ) -> None:
        if port == 0:
            raise ValueError("got port 0, expected a fixed port: the reasoner's url has to name it")
        self.server = VllmServer(
            model=model,
            python=python,
            host=host,
            port=port,
            served_model_name=served_model_name,
            max_model_len=max_model_len,
            gpu_memory_utilization=gpu_memory_utilization,
            extra_args=extra_args,
            env=env,
            start_timeout_s=start_timeout_s,
            log_path=log_path,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts the server, or waits for it. Runs before ``on_fit_start``, where the reasoner is checked.

        Raises:
            VllmError: it did not start.
            FolderError: the model's folder holds code or pickles.
        """
        if trainer.num_nodes > 1 and is_local_address(self.server.host):
            raise VllmError(
                f"got {trainer.num_nodes} nodes and a vLLM server on {self.server.host}, which only its own node can "
                "reach; start servers with `racro-pl serve reasoner --host ...` and remove VllmReasonerServer"
            )
        check_served(
            self.server.model, f"VllmReasonerServer's model {self.server.model!r}",
            trusted="--trust-remote-code" in self.server.extra_args,
        )  # fmt: skip
        # Every rank asks: the answers are agreed on by a broadcast.
        run_folder = trainer.log_dir
        key = trainer.strategy.broadcast(self.server.api_key or secrets.token_urlsafe(32))
        self.server.api_key = key
        issue_key(self.server.url, key)
        if not trainer.is_global_zero:
            self.server.wait_for_other_process()
            return
        if self.server.log_path is None and run_folder is not None:
            self.server.log_path = Path(run_folder) / "vllm.log"
        self.server.start()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ends the server."""
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ends the server: not every failure is followed by a teardown."""
        self._end()

    def _end(self) -> None:
        self.server.stop()
        withdraw_key(self.server.url)
