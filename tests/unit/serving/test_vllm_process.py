"""VllmServer with a small program in vLLM's place: what matters here is how it is started, watched and ended."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from racro_pl.commands import serve
from racro_pl.pretrained.folder import FolderError
from racro_pl.serving import vllm_process
from racro_pl.serving.addresses import AddressError, is_healthy, socket_path
from racro_pl.serving.vllm_process import ServerSettings, VllmError, VllmServer
from tests.fakes.vllm import is_alive, recorded_pids, wait_until_gone, write_fake_vllm


@pytest.fixture
def fake_server(tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_process, "GRACE_S", 1.0)
    python = write_fake_vllm(tmp_path)
    (tmp_path / "model").mkdir()
    servers = []

    def make(mode: str, **options) -> VllmServer:
        env = {"FAKE_MODE": mode, "FAKE_PIDS": str(tmp_path / "pids")}
        own = {name: options.pop(name) for name in ("uds", "api_key") if name in options}
        start = ServerSettings(**{"start_timeout_s": 200.0, "python": str(python), "env": env} | options)
        servers.append(VllmServer(tmp_path / "model", start, log_path=tmp_path / "vllm.log", **own))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


def test_serves_while_in_the_block_and_leaves_nothing_behind(fake_server, tmp_path):
    with fake_server("serve") as server:
        pids = recorded_pids(tmp_path)
        assert pids[0] == server.pid
        assert all(map(is_alive, pids))
        assert httpx.get(f"{server.root}/health", timeout=100).status_code == 200
        assert server.url == f"http://127.0.0.1:{server.port}/v1"
    assert not any(map(is_alive, pids))
    assert server.pid is None
    server.stop()  # a second time does nothing


def test_behind_a_socket_in_a_folder_that_only_this_user_can_enter(fake_server, tmp_path):
    uds = tmp_path / "own" / "vllm.sock"
    with fake_server("serve", uds=uds) as server:
        assert stat.S_IMODE(uds.parent.stat().st_mode) == 0o700
        assert server.where == f"unix:{uds}"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(uds)), timeout=100) as client:
            assert client.get(f"{server.root}/health").status_code == 200
        server.stop()
        server.start()
        server.wait_for_other_process()  # as the other ranks do
        # Whoever waits for a socket does not connect to one that others could have put there.
        uds.parent.chmod(0o755)
        assert not is_healthy(server.root, uds=uds)
    assert not uds.parent.exists()


def test_a_folder_that_is_there_already_is_not_used_for_a_socket(fake_server, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(AddressError, match=r"cannot make the folder .*taken for the server's socket \(File exists\)"):
        fake_server("serve", uds=tmp_path / "taken" / "vllm.sock").start()
    assert (tmp_path / "taken").is_dir()


def test_a_socket_path_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/tmp/" + "x" * 100)
    with pytest.raises(AddressError, match="set TMPDIR to a shorter path"):
        socket_path("run")


def test_a_key_is_in_the_environment_of_the_server_alone(fake_server, tmp_path):
    with fake_server("serve", api_key="k3y") as server:
        found = [
            httpx.get(f"{server.url}/models", headers={"Authorization": f"Bearer {key}"}, timeout=100).status_code
            for key in ("other", "k3y")
        ]
        assert found == [401, 200]
        assert "k3y" not in Path(f"/proc/{server.pid}/cmdline").read_text()
    assert "k3y" not in (tmp_path / "vllm.log").read_text()


@pytest.mark.parametrize("options", [{"extra_args": ["--api-key", "k3y"]}, {"env": {"VLLM_API_KEY": "k3y"}}])
def test_a_key_among_the_settings_is_refused(tmp_path, options):
    with pytest.raises(AddressError, match="export VLLM_API_KEY before the run instead") as error:
        VllmServer(tmp_path, ServerSettings(**options))
    assert "k3y" not in str(error.value)


def test_a_server_that_ignores_sigterm_is_killed(fake_server, tmp_path):
    with fake_server("stubborn"):
        pids = recorded_pids(tmp_path)
    assert not any(map(is_alive, pids))


def test_death_while_starting_shows_status_and_log_tail(fake_server, tmp_path):
    (tmp_path / "vllm.log").write_text("from an earlier start\n")
    server = fake_server("die")
    with pytest.raises(VllmError) as error:
        server.start()
    assert "ended with status 3 before it was ready" in str(error.value)
    assert "ValueError: no such thing" in str(error.value)
    assert "earlier start" not in str(error.value)
    assert str(tmp_path / "vllm.log") in str(error.value)


def test_a_server_that_never_gets_healthy_is_ended_at_the_deadline(fake_server, tmp_path, monkeypatch):
    server = fake_server("silent", start_timeout_s=1.0)
    log = tmp_path / "vllm.log"

    def looks_when_it_has_started(*args, **options):
        while "loading" not in log.read_text():
            time.sleep(0.02)
        return is_healthy(*args, **options)

    monkeypatch.setattr(vllm_process.addresses, "is_healthy", looks_when_it_has_started)
    with pytest.raises(VllmError, match=r"(?s)not ready after 1 s.*loading for ever"):
        server.start()
    assert not any(map(is_alive, recorded_pids(tmp_path)))


def test_an_interpreter_that_cannot_run_is_named(fake_server, tmp_path):
    with pytest.raises(VllmError, match="no_such_python is not an interpreter"):
        fake_server("serve", python=tmp_path / "no_such_python").start()
    with pytest.raises(VllmError, match="cannot run no-such-command"):
        fake_server("serve", python="no-such-command").start()


def test_a_missing_model_folder_is_named(tmp_path):
    with pytest.raises(VllmError, match="model folder .*absent does not exist"):
        VllmServer(tmp_path / "absent").start()


def test_a_taken_port_is_refused_before_anything_starts(fake_server, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(VllmError, match="taken by another program"):
            fake_server("serve", port=other.getsockname()[1]).start()
    assert not (tmp_path / "pids").exists()


def test_restart_after_a_crash_keeps_the_port(fake_server, tmp_path):
    with fake_server("serve") as server:
        port, first_pid, others = server.port, server.pid, recorded_pids(tmp_path)[1:]
        os.killpg(first_pid, signal.SIGKILL)
        # The supervisor ends the workers of a crashed server too.
        wait_until_gone([first_pid, *others])
        end = time.monotonic() + 100
        while (status := server.poll()) is None and time.monotonic() < end:
            time.sleep(0.05)
        assert status == 128 + signal.SIGKILL
        server.stop()
        server.start()
        assert (server.port, server.pid != first_pid) == (port, True)
        assert httpx.get(f"{server.root}/health", timeout=100).status_code == 200


def start_expression(server: VllmServer) -> str:
    """Python source that starts the same server in another process."""
    log_path = str(server.log_path)
    return f"VllmServer({server.model!r}, {server.settings!r}, log_path={log_path!r}).start()"


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_takes_the_server_along(fake_server, tmp_path, signum):
    server = fake_server("serve")
    program = (
        "import sys, time\nfrom racro_pl.serving.vllm_process import ServerSettings, VllmServer\n"
        f"{start_expression(server)}\n"
        "print('up', flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        pids = recorded_pids(tmp_path)
        parent.send_signal(signum)
    wait_until_gone(pids)


def test_a_parent_that_exits_without_stopping_takes_the_server_along(fake_server, tmp_path):
    server = fake_server("serve")
    program = f"from racro_pl.serving.vllm_process import ServerSettings, VllmServer\n{start_expression(server)}\n"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=200)
    # Ended when the parent is, not some time after.
    assert not any(map(is_alive, recorded_pids(tmp_path)))


def test_command_and_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    settings = ServerSettings(
        python="/other/python", port=1234, max_model_len=64, gpu_memory_utilization=0.5,
        extra_args=["--enforce-eager"], env={"CUDA_VISIBLE_DEVICES": "1"},
    )  # fmt: skip
    server = VllmServer(tmp_path, settings)
    assert server.command() == [
        "/other/python", "-m", "vllm.entrypoints.openai.api_server", "--model", str(tmp_path),
        "--served-model-name", tmp_path.name, "--host", "127.0.0.1", "--port", "1234", "--max-model-len", "64",
        "--gpu-memory-utilization", "0.5", "--disable-uvicorn-access-log", "--enforce-eager",
    ]  # fmt: skip
    env = server.environment()
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["CUDA_VISIBLE_DEVICES"] == "1"
    assert not {"LOCAL_RANK", "PYTHONPATH"} & env.keys()


def test_serve_command_prints_the_configuration_and_stops_on_sigterm(fake_server, tmp_path):
    server = fake_server("serve")
    command = [sys.executable, "-c", "import sys; from racro_pl.commands import serve; sys.exit(serve.main())"]
    command += ["reasoner", "--model", server.model, "--python", server.python, "--port", "0"]
    command += ["--log", str(server.log_path), "--data-parallel-size", "2", "--", "--enforce-eager"]
    env = os.environ | server.settings.env | {"VLLM_API_KEY": "secret"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        lines = []
        while not lines or "Ctrl-C" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], f"ended early: {lines}"
        pids = recorded_pids(tmp_path)
        started = Path(f"/proc/{pids[0]}/cmdline").read_text().split("\0")
        assert "--enforce-eager" in started
        assert started[started.index("--data-parallel-size") + 1] == "2"
        assert "secret" not in started
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=200) == 0
    text = "".join(lines)
    assert "class_path: racro_pl.reward.HttpReasoner" in text
    assert "url: http://127.0.0.1:" in text
    assert "api_key_env: VLLM_API_KEY" in text
    assert "secret" not in text
    assert not any(map(is_alive, pids))


def test_serve_command_refuses_no_copies_at_all():
    with pytest.raises(VllmError, match="--data-parallel-size is 0; expected 1 or more"):
        serve.main(["reasoner", "--model", "m", "--data-parallel-size", "0"])


def test_serve_command_starts_no_folder_with_code_in_it(fake_server, tmp_path):
    server = fake_server("serve")
    (Path(server.model) / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
    with pytest.raises(FolderError, match="sets auto_map, which names Python code"):
        serve.main(["reasoner", "--model", server.model, "--python", server.python])
    assert not (tmp_path / "pids").exists()


def test_serve_command_reports_a_server_that_ends_by_itself(fake_server, tmp_path, monkeypatch):
    server = fake_server("crash_later")
    for name, value in server.settings.env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(VllmError, match="status 9"):
        serve.main(
            [
                "reasoner",
                "--model",
                server.model,
                "--python",
                server.python,
                "--port",
                "0",
                "--log",
                str(server.log_path),
            ]
        )
    assert not any(map(is_alive, recorded_pids(tmp_path)))
