"""Settings of the engine, and the server that a run starts itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import LlavaOnevisionConfig

from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.rollout import RunInfo, TransformersEngine, VllmEngine
from racro_pl.rollout.vllm.protocol import RolloutError
from racro_pl.rollout.vllm.server import (
    ServerSettings,
    announce_key,
    processor_options,
    required_arguments,
    rollout_server,
)
from racro_pl.types import SettingError
from tests.helpers.families import save_small_family
from tests.unit.rollout.test_vllm_engine import encoded, serve


@pytest.mark.parametrize("engine", [TransformersEngine, VllmEngine])
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_captions_need_a_temperature_that_can_be(engine, temperature):
    more = {"url": "http://127.0.0.1:1/v1"} if engine is VllmEngine else {}
    with pytest.raises(SettingError, match=f"temperature is {temperature}; expected a finite number above 0"):
        engine(temperature=temperature, **more)


def test_full_fine_tuning_is_refused(folder, tmp_path):
    policy = PolicySettings(path=str(folder), lora=None, dtype="float32")
    with pytest.raises(RolloutError, match="pushes adapters, not whole models"):
        VllmEngine(url="http://127.0.0.1:1/v1").open(RunInfo(policy, tmp_path, "run"))


def test_a_family_that_vllm_cannot_sample_for_is_refused_with_the_reason_before_a_server_starts(tmp_path):
    (tmp_path / "config.json").write_text(LlavaOnevisionConfig().to_json_string())
    run = RunInfo(PolicySettings(path=str(tmp_path)), tmp_path, "run")
    reason = "of the family llava_onevision.*no LoRA.*It takes .*internvl.*qwen3_vl.*; sample with .*TransformersEngine"
    with pytest.raises(RolloutError, match=reason):
        VllmEngine(server=ServerSettings()).open(run)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("internvl", {"max_patches": 2, "min_patches": 1}),  # tiles of 28 x 28
        ("idefics3", {"size": {"longest_edge": 32}}),
        ("mistral3", {"size": {"longest_edge": 42}}),
    ],
)
def test_a_server_that_processes_pictures_itself_is_told_the_trainers_limits(tmp_path, kind, options):
    folder = save_small_family(tmp_path, kind)
    policy = PolicySettings(path=str(folder), min_pixels=28 * 28, max_pixels=42 * 42)
    assert processor_options(policy) == options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either the url of a running vLLM server, or server"),
        ({"url": "http://a/v1", "server": ServerSettings()}, "either the url"),
        (
            {"url": "http://a/v1", "canary_every": 0, "canary_threshold": 0.0},
            "canary_every is 0.*canary_threshold is 0",
        ),
        ({"url": "http://a/v1", "group_size": 1}, "group_size is 1"),
        ({"url": "http://me:secret@a/v1"}, "user or password in it, expected"),
        ({"url": "http://127.0.0.1:99999/v1"}, "Port out of range"),
        ({"url": "127.0.0.1:8000/v1"}, "expected http://host:port/v1"),
        ({"url": "http://a/v1?key=x"}, r"url with \? or # in it"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VllmEngine(**options)


def test_a_url_is_taken_without_the_space_around_it():
    assert VllmEngine(url=" http://0.0.0.0:8000/v1/\n").url == "http://0.0.0.0:8000/v1"


def test_the_runs_own_server_gets_what_rollouts_need(folder):
    policy = PolicySettings(path=str(folder), lora=LoraSettings(20, 40), dtype="float32", max_pixels=900_000)
    run = RunInfo(policy, folder, "abc123", key="made for the run")
    server = rollout_server(ServerSettings(extra_args=("--enforce-eager",)), run)
    command = " ".join(server.command())
    for part in ("--enable-lora --max-lora-rank 32", "--logprobs-mode processed_logprobs", "--dtype float32",
                 '{"min_pixels": 1, "max_pixels": 900000}', "--enforce-eager"):  # fmt: skip
        assert part in command
    assert server.environment()["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert "VLLM_SERVER_DEV_MODE" not in server.settings.env
    assert "--enable-sleep-mode" not in command
    sleeping = rollout_server(ServerSettings(), run, sleep=True)
    assert "--enable-sleep-mode" in sleeping.command()
    assert sleeping.settings.env["VLLM_SERVER_DEV_MODE"] == "1"
    with pytest.raises(RolloutError, match="rank is 600; vLLM serves ranks up to 512"):
        required_arguments(PolicySettings(path=str(folder), lora=LoraSettings(600, 600)))


def test_the_runs_own_server_listens_on_a_socket_that_only_this_user_reaches(folder, monkeypatch):
    """No port, so no key either, unless the user has set one, which vLLM would then ask for."""
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    run = RunInfo(PolicySettings(path=str(folder)), folder, "abc123", ranks=4, key="made for the run")
    server = rollout_server(ServerSettings(), run)
    assert server.uds == Path(tempfile.gettempdir()) / "racro-abc123" / "vllm.sock"
    assert server.command()[5:8] == ["--served-model-name", "captioner", "--uds"]
    assert not {"--host", "--port"} & set(server.command())
    assert server.api_key is None
    assert "VLLM_API_KEY" not in server.environment()
    monkeypatch.setenv("VLLM_API_KEY", "the user's")
    assert rollout_server(ServerSettings(), run).api_key == "the user's"


def test_a_server_with_an_address_needs_a_key_of_the_run(folder, monkeypatch):
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    run = RunInfo(PolicySettings(path=str(folder)), folder, "abc123", ranks=4, nodes=2, key="made for the run")
    settings = ServerSettings(host="10.0.0.1", port=8123)
    server = rollout_server(settings, run)
    assert server.uds is None
    assert server.environment()["VLLM_API_KEY"] == "made for the run"
    assert "made for the run" not in " ".join([*server.command(), repr(run), repr(settings)])
    monkeypatch.setenv("VLLM_API_KEY", "the user's")
    assert rollout_server(settings, run).environment()["VLLM_API_KEY"] == "the user's"


@pytest.mark.parametrize(
    ("settings", "run", "sleep", "message"),
    [
        ({"port": 8100}, {}, False, "has port 8100 and no host.*remove port, or set host as well"),
        ({}, {"nodes": 2, "ranks": 2}, False, "2 nodes share one .*a Unix socket reaches only its own"),
        ({"host": "127.0.0.1"}, {"ranks": 2}, False, "set a fixed port beside host"),
        ({"host": "127.0.0.1", "port": 8100}, {"nodes": 2, "ranks": 2}, False, "set the first node's address"),
        ({"host": "0.0.0.0", "port": 8100}, {"nodes": 2, "ranks": 2}, False, "set the first node's address"),
        ({"host": "127.0.0.1"}, {}, True, "development endpoints, which ask for no key"),
    ],
)  # fmt: skip
def test_addresses_that_do_not_fit_the_run_are_refused(folder, tmp_path, settings, run, sleep, message):
    engine = VllmEngine(server=ServerSettings(**settings), sleep=sleep)
    with pytest.raises(RolloutError, match=message):
        engine.open(RunInfo(PolicySettings(path=str(folder)), tmp_path, "run", **run))


@pytest.mark.parametrize("settings", [{"extra_args": ["--api-key", "s3cret"]}, {"extra_args": ["--api-key=s3cret"]},
                                      {"env": {"VLLM_API_KEY": "s3cret"}}])  # fmt: skip
def test_a_key_in_the_settings_is_refused_and_not_repeated(settings):
    with pytest.raises(ValueError, match="would be written into files .* export VLLM_API_KEY") as error:
        ServerSettings(**settings)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("uds", [False, True])
@pytest.mark.parametrize("key", ["", "k3y"])
def test_a_locked_server_is_used_with_the_key_of_the_environment(folder, captioner, tmp_path, monkeypatch, uds, key):
    """Over TCP and over a socket, through adapters, captions and sleep; without the key the run stops, and says so."""
    monkeypatch.setenv("VLLM_API_KEY", key)
    path = tmp_path / "s" / "vllm.sock"
    path.parent.mkdir(mode=0o700)
    with serve(folder, key="k3y", uds=path if uds else None) as server:
        if uds:
            own = SimpleNamespace(
                url="http://localhost/v1", uds=path, api_key=key or None, poll=lambda: None, stop=bool
            )
            monkeypatch.setattr("racro_pl.rollout.vllm.engine.start_server", lambda *_: own)
        options = {"url": None, "server": ServerSettings()} if uds else {}
        engine = VllmEngine(**({"url": server.url, "group_size": 3, "max_new_tokens": 6, "attempts": 2} | options))
        policy = PolicySettings(path=str(folder), lora=LoraSettings(4, 8), min_pixels=3136, max_pixels=16384)
        if not key:
            with pytest.raises(RolloutError, match=f"{path if uds else server.url}.*HTTP 401: Unauthorized"):
                engine.open(RunInfo(policy, tmp_path, "run"))
            engine.close()
            return
        engine.open(RunInfo(policy, tmp_path, "run"))
        assert len(list(engine.sample(captioner, encoded(captioner)[:2], 0))) == 2
        engine.close()
    assert server.log[0] == "load racro-run-0"


def test_a_key_that_leaves_this_machine_is_announced(folder, monkeypatch, capfd):
    monkeypatch.setenv("VLLM_API_KEY", "s3cret")
    with pytest.warns(UserWarning, match="is sent to vllm.invalid unencrypted") as caught:
        announce_key("http://vllm.invalid:8000/v1")
    announce_key("http://127.0.0.1:8000/v1")
    assert "s3cret" not in str(caught[0].message) + "".join(capfd.readouterr())
