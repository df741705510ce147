"""A Lightning callback that runs the reasoner's vLLM server for as long as the trainer runs."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from racro_pl.pretrained.folder import check_served
from racro_pl.serving.addresses import issue_key, withdraw_key
from racro_pl.serving.network import is_local_address
from racro_pl.serving.vllm_process import ServerSettings, VllmError, VllmServer
from racro_pl.types import require


class VllmReasonerServer(Callback):
    """Starts a vLLM server before the run checks its reasoner, and ends it with the run, however that ends.

    Global rank 0 starts it; the other ranks wait until it is healthy. Point ``HttpReasoner`` at
    ``http://127.0.0.1:PORT/v1``. On several nodes start servers with ``racro-pl serve reasoner`` instead.

    Requests need a key: that of ``VLLM_API_KEY`` where it is set, else one made for this run. ``HttpReasoner`` sends
    it by itself to this address, and to no other; it stands in no argument, file or log.

    Args:
        model: model folder, or hub id.
        port: fixed, since the reasoner's URL in the configuration names it.
        served_model_name: name that requests use; the folder's name, or the hub id, when None.
        log_path: file for the server's output; ``vllm.log`` in the run folder when None.
        **settings: the others of :class:`~racro_pl.serving.vllm_process.ServerSettings`. vLLM's default share of the
            GPU's memory leaves no room for a trainer on the same GPU.
    """

    def __init__(
        self,
        model: str,
        port: int = 8000,
        served_model_name: str | None = None,
        log_path: str | None = None,
        **settings: Any,
    ) -> None:
        require(port > 0, f"port {port}", "a fixed port: the reasoner's url has to name it")
        start = ServerSettings(port=port, **settings)
        self.server = VllmServer(model, start, served_model_name=served_model_name, log_path=log_path)

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
            trusted="--trust-remote-code" in self.server.settings.extra_args,
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
