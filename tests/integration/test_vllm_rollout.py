"""Rollouts by a real vLLM: the adapter reaches it, the log-probs are the trainer's, and the canary sees when not."""

from __future__ import annotations

import csv
import json
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
import torch

from racro_pl.cli import run
from racro_pl.figure_world.models import EMBEDDED
from racro_pl.figure_world.world import figure_questions
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.policy.loading import load_captioner
from racro_pl.rollout import RunInfo, VllmEngine
from racro_pl.rollout.vllm.adapter import AdapterPusher
from racro_pl.rollout.vllm.protocol import RolloutError
from racro_pl.rollout.vllm.server import ServerSettings, rollout_server
from racro_pl.serving.vllm_process import VllmServer
from tests.helpers.tolerance import NATS
from tests.integration.conftest import ONE_PROCESS_LESS

pytestmark = pytest.mark.vllm
CONFIGS = Path(__file__).parents[2] / "configs"
POLICY = PolicySettings(
    path=str(EMBEDDED["figure-captioner"]), lora=LoraSettings(16, 32), dtype="float32", gradient_checkpointing=False,
    min_pixels=3136, max_pixels=3136,
)  # fmt: skip
LARGEST = 112 * 112
QUICKSTART = ["fit", "--config", str(CONFIGS / "quickstart_vllm.yaml")]
ROLLOUT = "--model.rollout.init_args"


KEY = "a key of this test"


@pytest.fixture(scope="module")
def server(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """Started as a run starts its own where a socket is not possible: with the same flags, an address and a key."""
    settings = ServerSettings(
        python=str(vllm_python), host="127.0.0.1", max_model_len=512, extra_args=["--enforce-eager"],
        start_timeout_s=280,
    )  # fmt: skip
    policy = replace(POLICY, max_pixels=LARGEST)
    with rollout_server(settings, RunInfo(policy, tmp_path_factory.mktemp("rollout"), "tests", key=KEY)) as running:
        yield running


@pytest.fixture(autouse=True)
def key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)


def train(server: VllmServer, folder: Path) -> int:
    return run([
        *QUICKSTART, f"{ROLLOUT}.server", "null", f"{ROLLOUT}.url", server.url, f"{ROLLOUT}.canary_every", "1",
        "--data.questions_per_step", "6", "--trainer.max_steps", "3", "--trainer.callbacks", "null", "--runs",
        str(folder), "--model.objective.warmup_updates", "0",
    ])  # fmt: skip


def test_three_steps(server: VllmServer, tmp_path, capfd):
    code = train(server, tmp_path)
    printed = capfd.readouterr()
    assert code == 0, printed.out + printed.err
    folder = tmp_path / "quickstart/version_0"
    captions = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    assert len(captions) == 3 * 6 * 8
    # Each step's captions were sampled with the weights that the step before it made.
    assert {(row["step"], row["adapter_version"]) for row in captions} == {(1, 0), (2, 1), (3, 2)}
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    for row in rows:
        assert float(row["rollout/canary_gap"]) < NATS
        assert float(row["importance/logprob_gap"]) < NATS
        assert float(row["importance/mean_ratio"]) == pytest.approx(1, abs=1e-3)
        assert float(row["importance/effective_sample_share"]) > 0.999
    assert not (folder / "rollout_adapters").exists()


def test_a_run_whose_adapter_is_not_pushed_stops(server: VllmServer, tmp_path, capfd, monkeypatch):
    """vLLM keeps the adapter of the start. Three updates at the quickstart's rate are enough for the canary to see."""
    push = AdapterPusher.push
    pushed: list[str] = []

    def push_once(self: AdapterPusher, captioner: Captioner, version: int) -> str:
        if not pushed:
            pushed.append(push(self, captioner, version))
        return pushed[0]

    monkeypatch.setattr(AdapterPusher, "push", push_once)
    assert train(server, tmp_path) == 1
    error = capfd.readouterr().err
    assert "canary: vLLM's log-probs of its own captions differ from the trainer's" in error


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return load_captioner(POLICY, torch.device("cpu"))


def test_the_adapter_changes_what_vllm_writes(server: VllmServer, captioner: Captioner, tmp_path):
    """Greedy captions follow the trainer's own through two versions of the adapter."""
    questions = [(question, captioner.encode(question)) for question in figure_questions("test", 12)]
    engine = VllmEngine(url=server.url, max_new_tokens=16)
    engine.open(RunInfo(POLICY, tmp_path, "changes"))
    texts = []
    for version in (0, 1):
        if version:
            with torch.no_grad():
                for name, parameter in captioner.named_parameters():
                    if "lora_B" in name:
                        parameter.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(3))
        texts.append(engine.caption_greedily(captioner, questions, version))
        own = captioner.generate([prompt for _, prompt in questions], 1, 16, temperature=None).texts
        # Another engine rounds differently: a near-tie may turn, not more.
        assert sum(text == other for text, other in zip(texts[-1], own, strict=True)) >= 11
    assert sum(before != after for before, after in zip(*texts, strict=True)) >= 6
    engine.close()


def test_images_that_have_to_be_scaled_make_the_trainers_prompt(server: VllmServer, tmp_path):
    """Pictures of 56 x 56 that the trainer scales to 112 x 112: vLLM gets them in that size, and leaves them in it."""
    policy = replace(POLICY, min_pixels=LARGEST, max_pixels=LARGEST)
    large = load_captioner(policy, torch.device("cpu"))
    questions = [(question, large.encode(question)) for question in figure_questions("test", 4)]
    assert all(prompt.vision["image_grid_thw"].tolist() == [[1, 8, 8]] for _, prompt in questions)
    engine = VllmEngine(url=server.url, max_new_tokens=8)
    engine.open(RunInfo(policy, tmp_path, "large"))
    rollouts = list(engine.sample(large, questions, 0))
    engine.close()
    assert engine.metrics()["canary_gap"] < NATS
    assert len(rollouts) == 4


def test_an_adapter_of_a_rank_that_the_server_has_no_room_for_is_told(server: VllmServer, tmp_path):
    policy = replace(POLICY, lora=LoraSettings(64, 64))
    wide = load_captioner(policy, torch.device("cpu"))
    engine = VllmEngine(url=server.url, max_new_tokens=8, attempts=1)
    engine.open(RunInfo(policy, tmp_path, "wide"))
    question = figure_questions("test", 1)[0]
    with pytest.raises(RolloutError, match="did not load the adapter .*--max-lora-rank"):
        list(engine.sample(wide, [(question, wide.encode(question))], 0))
    engine.close()


def test_nobody_without_the_key_loads_adapters_or_samples(server: VllmServer, tmp_path, monkeypatch):
    """And what vLLM answers all the same, as docs/vllm.md says: nothing that changes what a run samples."""
    body = {"lora_name": "mine", "lora_path": "/etc"}
    with httpx.Client(trust_env=False, timeout=60) as other:
        for path in ("load_lora_adapter", "unload_lora_adapter", "chat/completions", "completions"):
            assert other.post(f"{server.url}/{path}", json=body).status_code == 401
        assert other.get(f"{server.url}/models").status_code == 401
        assert other.get(f"{server.root}/health").status_code == 200
        for path in ("sleep", "wake_up", "collective_rpc", "reset_prefix_cache"):
            assert other.post(f"{server.root}/{path}", json={}).status_code == 404
    assert KEY not in Path(f"/proc/{server.pid}/cmdline").read_text()
    monkeypatch.delenv("VLLM_API_KEY")
    with pytest.raises(RolloutError, match="HTTP 401"):
        VllmEngine(url=server.url, max_new_tokens=8).open(RunInfo(POLICY, tmp_path, "locked out"))


def answer_of(port: int) -> str | None:
    """What is answered to an HTTP request; None when it is not HTTP, or nothing."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5, trust_env=False).text
    except httpx.TransportError:
        return None


def test_the_runs_own_server_listens_on_its_socket_alone(vllm_python: Path, captioner, tmp_path, monkeypatch):
    monkeypatch.delenv("VLLM_API_KEY")
    monkeypatch.delenv(ONE_PROCESS_LESS)  # in all the processes that vLLM starts where nobody asks for fewer
    settings = ServerSettings(
        python=str(vllm_python), max_model_len=512, extra_args=["--enforce-eager"], start_timeout_s=280
    )
    engine = VllmEngine(server=settings, group_size=2, max_new_tokens=8)
    engine.open(RunInfo(POLICY, tmp_path, "socket"))
    own = engine._server
    assert own is not None
    assert own.uds is not None
    assert own.pid is not None
    try:
        assert stat.S_IMODE(own.uds.parent.stat().st_mode) == 0o700
        processes = [psutil.Process(own.pid), *psutil.Process(own.pid).children(recursive=True)]
        listening = [c for p in processes for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        # Between its own processes vLLM uses ports of its own; none of them speaks HTTP. Most say nothing at all: asked
        # one after the other they would cost a minute of waiting.
        with ThreadPoolExecutor(max(1, len(listening))) as pool:
            answers = list(pool.map(answer_of, [connection.laddr.port for connection in listening]))
        assert not any(answers), answers
        questions = [(question, captioner.encode(question)) for question in figure_questions("test", 2)]
        assert len(list(engine.sample(captioner, questions, 0))) == 2
    finally:
        engine.close()
    assert not own.uds.parent.exists()
