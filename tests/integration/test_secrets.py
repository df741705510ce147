"""An API key is sent to its server and goes nowhere else: no message, no log, no file of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.fakes.reasoner_server import FaultServer
from tests.integration.test_cli import QUICKSTART, call, fit_own_data, good_rows

SECRET = "sk-SENTINEL0123456789"
REASONER = "--model.reward.reasoner.init_args"


def found_in_files(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_run_uses_the_key_of_the_environment_and_writes_it_nowhere(capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", SECRET)
    with FaultServer() as server:
        code, printed = fit_own_data(
            capfd, tmp_path, good_rows(2), server.url, f"{REASONER}.api_key_env", "MY_API_KEY"
        )  # fmt: skip
        assert {headers.get("authorization") for headers in server.headers} == {f"Bearer {SECRET}"}
    assert code == 0, printed
    assert SECRET not in printed
    run = tmp_path / "runs/own_data/version_0"
    assert {"config.yaml", "metrics.csv", "captions.jsonl"} <= {path.name for path in run.iterdir()}
    assert list(run.rglob("*.ckpt"))
    assert found_in_files(tmp_path) == []


def test_a_server_that_quotes_the_key_in_its_refusal(capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "told")  # the fault server's message says "told to fail"
    with FaultServer(script=["401"]) as server:
        code, printed = fit_own_data(
            capfd, tmp_path, good_rows(2), server.url, f"{REASONER}.api_key_env", "MY_API_KEY"
        )  # fmt: skip
    assert code == 1
    assert "*** to fail with 401" in printed


URL = f"http://user:{SECRET}@127.0.0.1:9/v1"


@pytest.mark.parametrize(
    "arguments",
    [
        (f"{REASONER}.url", URL),
        # The key itself where the name of its variable belongs.
        (f"{REASONER}.api_key_env", SECRET),
    ],
    ids=["url", "key for name"],
)
def test_a_key_on_the_command_line_is_refused_without_being_repeated(capfd, tmp_path, arguments):
    code, printed = fit_own_data(capfd, tmp_path, good_rows(2), "http://127.0.0.1:9/v1", *arguments)
    assert code != 0
    assert "api_key_env" in printed
    assert SECRET not in printed
    assert found_in_files(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor", "--reasoner", URL),
        ("ask", "figure.png", "how many?", "--reasoner", URL),
        ("ask", "figure.png", "how many?", "--captioner", URL),
        ("test", "--benchmarks", "figures", "--captioners", URL, "--reasoners", URL),
        ("fit", "--config", QUICKSTART, "--model.rollout", "racro_pl.rollout.VllmEngine", "--model.rollout.url", URL),
    ],
    ids=lambda arguments: " ".join(arguments[:1] + arguments[-2:-1]),
)
def test_a_password_in_a_url_is_refused_without_being_repeated(capfd, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    Image.new("RGB", (56, 56)).save(tmp_path / "figure.png")
    code, printed = call(capfd, *arguments)
    assert code != 0
    assert "user or password" in printed
    assert SECRET not in printed
    assert found_in_files(tmp_path) == []


@pytest.mark.parametrize("settings", [f"{{extra_args: [--api-key, {SECRET}]}}", f"{{env: {{VLLM_API_KEY: {SECRET}}}}}"])
def test_a_key_for_the_rollout_server_in_its_settings_is_refused_without_being_repeated(
    capfd, tmp_path, monkeypatch, settings
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    code, printed = call(
        capfd, "fit", "--config", QUICKSTART, "--model.rollout", "racro_pl.rollout.VllmEngine",
        "--model.rollout.init_args.server", settings,
    )  # fmt: skip
    assert code != 0
    assert "export VLLM_API_KEY before the run instead" in printed
    assert SECRET not in printed
    assert found_in_files(tmp_path) == []
