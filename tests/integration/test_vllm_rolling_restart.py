"""Two real vLLM servers behind one pool are restarted, one after the other, during a run: nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightning.pytorch import Callback, Trainer

from racro_pl.reward import HttpReasoner, ReasonerPool, Scorer
from racro_pl.serving.vllm_process import VllmServer
from racro_pl.training.module import RacroModule
from tests.unit.training.conftest import fit, make_module

pytestmark = pytest.mark.vllm


@pytest.fixture
def second_server(vllm_server: VllmServer, tmp_path: Path) -> Iterator[VllmServer]:
    server = VllmServer(
        vllm_server.model,
        vllm_server.settings,
        served_model_name=vllm_server.served_model_name,
        log_path=tmp_path / "second.log",
    )
    with server:
        yield server


class RollingRestart(Callback):
    """Restarts the servers after the first step; the run ends with two steps on the new ones."""

    def __init__(self, servers: list[VllmServer]) -> None:
        self.servers = servers
        self.thread = threading.Thread(target=self.restart)
        self.failure: BaseException | None = None
        self.during = 0
        self.after = 0
        self.unscored: list[float] = []

    def restart(self) -> None:
        try:
            for server in self.servers:
                server.stop()
                server.start()
        except BaseException as error:
            self.failure = error

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: object) -> None:
        self.unscored.append(float(trainer.callback_metrics["reasoner/unscored"]))
        if trainer.global_step == 1:
            self.thread.start()
        elif self.thread.is_alive():
            self.during += 1
            self.thread.join(3.0)  # a step after the other would keep the cores from the server that starts
        else:
            self.after += 1
            trainer.should_stop = self.after == 2

    def teardown(self, trainer: Trainer, pl_module: RacroModule, stage: str) -> None:
        if self.thread.ident is not None:
            self.thread.join()


@pytest.mark.timeout(1500)
def test_a_rolling_restart_loses_nothing(vllm_server: VllmServer, second_server: VllmServer, tmp_path: Path):
    servers = [vllm_server, second_server]
    pids = [server.pid for server in servers]
    clients = [
        HttpReasoner(server.url, model=server.served_model_name, attempts=1, attempt_s=60.0, max_tokens=8)
        for server in servers
    ]
    module = make_module(Path("embedded:figure-captioner"))
    module.scorer = Scorer(
        ReasonerPool(clients, deadline_s=240.0, probe_s=1.0),
        cache="off",
        max_unscored_share=1.0,
        max_answerless_steps=None,
    )
    restart = RollingRestart(servers)
    fit(module, tmp_path, steps=2000, callbacks=[restart])
    assert restart.failure is None
    assert all(new not in (None, old) for new, old in zip([server.pid for server in servers], pids, strict=True))
    assert restart.during >= 2
    assert restart.unscored == [0.0] * (1 + restart.during + 2)
