"""An API key is sent to its server and goes nowhere else: no message, no log, no file of a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from racro_pl.commands import serve
from racro_pl.figure_world.models import resolve_model
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
    assert "holds a key or password" in printed
    assert SECRET not in printed
    assert found_in_files(tmp_path) == []


def test_results_and_report_name_no_key_no_server_and_no_folder(capfd, tmp_path, monkeypatch):
    """They are made to be handed on; where everything was is in config.yaml and run.json, for their owner alone."""
    monkeypatch.setenv("MY_API_KEY", SECRET)
    base = tmp_path / "private-folder" / "my-base"
    shutil.copytree(resolve_model("embedded:figure-captioner"), base)
    with FaultServer() as server:
        client = {"url": server.url, "api_key_env": "MY_API_KEY", "extra_body": {"user": "private-user"}}
        reasoner = {"class_path": "racro_pl.reward.HttpReasoner", "init_args": client}
        config = {
            "benchmarks": "figures",
            "captioners": [{"path": str(base), "max_new_tokens": 8}],
            "reasoners": [{"reasoner": reasoner, "name": "R"}],
            "limit": 2,
            "accelerator": "cpu",
            "runs": str(tmp_path / "runs"),
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        code, printed = call(capfd, "test", "--config", str(tmp_path / "config.yaml"))
        assert {headers.get("authorization") for headers in server.headers} == {f"Bearer {SECRET}"}
    assert code == 0, printed
    assert SECRET not in printed
    run = tmp_path / "runs/test/version_0"
    assert found_in_files(run) == []
    for name in ("results.json", "report.html"):
        content = (run / name).read_text()
        assert "my-base" in content
        for private in ("private-folder", "private-user", server.url.removesuffix("/v1")):
            assert private not in content, name
    modes = {path.name: path.stat().st_mode & 0o777 for path in run.iterdir() if path.is_file()}
    assert modes.pop("results.json") != 0o600
    assert set(modes.values()) == {0o600}, modes


@pytest.mark.parametrize(
    "arguments",
    [
        ("--trainer.logger", f"{{class_path: CometLogger, init_args: {{api_key: {SECRET}}}}}"),
        (f"{REASONER}.extra_body", f"{{headers: {{Authorization: Bearer {SECRET}}}}}"),
        (f"{REASONER}.extra_body.user", SECRET),
        (
            "--trainer.callbacks+=racro_pl.callbacks.VllmReasonerServer", "--trainer.callbacks.model", "M",
            "--trainer.callbacks.extra_args", f"[--api-key, {SECRET}]",
        ),
    ],
    ids=lambda arguments: arguments[-2],
)  # fmt: skip
def test_a_key_in_a_configuration_is_refused_at_the_start(capfd, tmp_path, arguments):
    """config.yaml, logs, model cards and messages would carry it on."""
    code, printed = fit_own_data(capfd, tmp_path, good_rows(2), "http://127.0.0.1:9/v1", *arguments)
    assert code == 1
    assert "holds a key or password" in printed
    assert len(printed.strip().splitlines()) == 1
    assert SECRET not in printed
    assert not (tmp_path / "runs").exists()
    assert found_in_files(tmp_path) == []


def test_a_key_for_a_server_on_its_command_line_is_refused(capfd, monkeypatch):
    monkeypatch.setattr(serve, "VllmServer", None)  # it does not come to that
    code, printed = call(capfd, "serve", "reasoner", "--model", "M", "--", "--api-key", SECRET)
    assert code == 1
    assert "VLLM_API_KEY" in printed
    assert SECRET not in printed
