"""The callback on a real Trainer, with a small program in vLLM's place."""

import httpx
import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from racro_pl.reward import HttpReasoner
from racro_pl.serving.addresses import free_port, issued_key
from racro_pl.serving.vllm_process import VllmError
from racro_pl.training.callbacks.vllm_server import VllmReasonerServer
from tests.fakes.vllm import is_alive, recorded_pids, write_fake_vllm
from tests.helpers.device import trainer_options


class Asks(BoringModel):
    """Checks the reasoner where RacroModule does, and again in each step."""

    def __init__(self, root: str, fails: bool = False) -> None:
        super().__init__()
        self.root = root
        self.models: list[int] = []
        self.fails = fails
        self.answers: list[int] = []

    def on_fit_start(self):
        url = f"{self.root}/v1"
        for key in (HttpReasoner(url)._api_key(), HttpReasoner("http://127.0.0.1:9/v1")._api_key()):
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            self.models.append(httpx.get(f"{url}/models", headers=headers, timeout=100).status_code)
        self.answers.append(httpx.get(f"{self.root}/health", timeout=100).status_code)

    def training_step(self, batch, batch_idx):
        self.answers.append(httpx.get(f"{self.root}/health", timeout=100).status_code)
        if self.fails:
            raise RuntimeError("the step failed")
        return super().training_step(batch, batch_idx)


def make_callback(tmp_path, mode: str) -> VllmReasonerServer:
    (tmp_path / "model").mkdir()
    return VllmReasonerServer(
        model=str(tmp_path / "model"),
        python=str(write_fake_vllm(tmp_path)),
        port=free_port("127.0.0.1"),
        env={"FAKE_MODE": mode, "FAKE_PIDS": str(tmp_path / "pids")},
        start_timeout_s=200,
    )


def make_trainer(tmp_path, callback: VllmReasonerServer) -> Trainer:
    return Trainer(
        default_root_dir=tmp_path, **trainer_options(), max_steps=1, limit_val_batches=0, callbacks=[callback],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip


def test_server_is_up_from_the_check_to_the_end_of_fit(tmp_path):
    callback = make_callback(tmp_path, "serve")
    model = Asks(callback.server.root)
    trainer = make_trainer(tmp_path, callback)
    trainer.fit(model)
    assert model.answers == [200, 200]
    assert not any(map(is_alive, recorded_pids(tmp_path)))
    assert str(callback.server.log_path).startswith(str(trainer.log_dir))


@pytest.mark.parametrize("given", ["", "the user's"])
def test_the_server_needs_a_key_that_the_reasoner_sends_by_itself(tmp_path, monkeypatch, given):
    """Made for the run where the user has none; for that address, while the server runs, and nowhere written."""
    monkeypatch.setenv("VLLM_API_KEY", given)
    callback = make_callback(tmp_path, "serve")
    model = Asks(callback.server.root)
    make_trainer(tmp_path, callback).fit(model)
    assert model.models == [200, 401]
    key = callback.server.api_key
    assert key == given if given else len(key or "") > 30
    assert issued_key(callback.server.url) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and (key or "").encode() in path.read_bytes()]


def test_server_is_ended_when_a_step_fails(tmp_path):
    callback = make_callback(tmp_path, "serve")
    with pytest.raises(RuntimeError, match="the step failed"):
        make_trainer(tmp_path, callback).fit(Asks(callback.server.root, fails=True))
    assert not any(map(is_alive, recorded_pids(tmp_path)))


def test_a_server_that_dies_stops_the_run_before_it_begins(tmp_path):
    callback = make_callback(tmp_path, "die")
    model = Asks(callback.server.root)
    with pytest.raises(VllmError, match="no such thing"):
        make_trainer(tmp_path, callback).fit(model)
    assert model.answers == []


def test_other_ranks_wait_no_longer_than_the_deadline(tmp_path):
    callback = make_callback(tmp_path, "serve")
    callback.server.settings.start_timeout_s = 1
    with pytest.raises(VllmError, match=r"(?s)not ready after 1 s.*rank 0 says why"):
        callback.server.wait_for_other_process()


def test_several_nodes_and_a_loopback_server_are_refused(tmp_path, monkeypatch):
    callback = make_callback(tmp_path, "serve")
    trainer = make_trainer(tmp_path, callback)
    monkeypatch.setattr(type(trainer), "num_nodes", 2)
    with pytest.raises(VllmError, match="2 nodes .* only its own node can reach"):
        callback.setup(trainer, BoringModel(), "fit")


def test_a_free_port_is_refused():
    with pytest.raises(ValueError, match="expected a fixed port"):
        VllmReasonerServer(model="m", port=0)
