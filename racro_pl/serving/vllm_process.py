"""A vLLM server as a child process: started with the right flags, waited for, and always ended.

vLLM stays what it is everywhere in this package, a program reached over HTTP: it is started by its module name with an
interpreter of the user's choice, so it may live in an environment of its own. Nothing here imports it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from racro_pl.files import private
from racro_pl.serving import addresses
from racro_pl.serving.addresses import KEY_VARIABLE
from racro_pl.terminal import Console
from racro_pl.types import RacroError

SUPERVISOR = Path(__file__).with_name("supervise.py")
GRACE_S = 10.0
"""Seconds between SIGTERM and SIGKILL: vLLM takes a few to let go of its workers."""
TAIL_LINES = 30
HEALTH_POLL_S = 0.5
PLAIN_PROGRESS_S = 15.0
"""Seconds between progress lines where no terminal shows a live one."""

# A launcher's variables describe the trainer's process group; vLLM would take them for its own.
LAUNCHER_VARIABLES = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE",
    "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip


class VllmError(RacroError):
    """The vLLM server could not be started, died while starting, or did not become healthy in time."""


@dataclass
class ServerSettings:
    """How to start a vLLM server, whatever it serves."""

    python: str | None = None
    """Interpreter of the environment that holds vLLM; this one when null."""
    host: str | None = None
    """Address to listen on. Null: for rollouts a Unix socket that only this user can reach (with a host, which several
    nodes need, requests need a key); for a reasoner 127.0.0.1. vLLM has no password unless it is given one."""
    port: int = 0
    """Port of ``host``; 0 picks a free one, which stays over a restart. Runs on several devices need a fixed one."""
    gpu_memory_utilization: float | None = None
    """Share of the GPU's memory to take; vLLM's default (which leaves a trainer no room beside it) when null."""
    max_model_len: int | None = None
    """Longest prompt and answer together, in tokens; the model's own when null."""
    extra_args: Sequence[str] = ()
    """Further arguments of the vLLM command line."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables to add to the server's environment, such as CUDA_VISIBLE_DEVICES."""
    start_timeout_s: float = 600.0
    """Seconds to wait for the server to be healthy, on every rank."""

    def __post_init__(self) -> None:
        addresses.refuse_written_keys(self.extra_args, self.env)


class VllmServer:
    """A vLLM OpenAI-compatible server in a child process. Use it as a context manager, or call start() and stop().

    It is ended by ``stop()``, at interpreter exit, and also when this process is killed: a supervisor process
    (``supervise.py``) watches for that and ends the server with all the workers that it has started.

    Args:
        model: model folder, or hub id.
        served_model_name: name that requests must use; the folder's name, or the hub id, when None.
        log_path: file for the server's output, appended to; a new temporary file when None.
        uds: Unix socket to listen on instead, in a folder that is made for it and that only this user can enter.
        api_key: what requests below ``/v1`` need; None for what the environment's ``VLLM_API_KEY`` says.
    """

    def __init__(
        self,
        model: str | Path,
        settings: ServerSettings = ServerSettings(),  # noqa: B008 (never modified)
        *,
        served_model_name: str | None = None,
        log_path: str | Path | None = None,
        uds: Path | None = None,
        api_key: str | None = None,
    ) -> None:
        self.is_local = Path(model).is_dir()
        self.model = str(Path(model).resolve()) if self.is_local else str(model)
        self.settings = settings
        self.python = str(settings.python or sys.executable)
        self.host = settings.host or "127.0.0.1"
        self.port = settings.port
        self.uds = uds
        self.served_model_name = served_model_name or (Path(self.model).name if self.is_local else self.model)
        self.api_key = api_key or os.environ.get(KEY_VARIABLE) or None
        self.log_path = Path(log_path) if log_path is not None else None
        self.pid: int | None = None
        """Process id of the server, which leads its process group; None while it does not run."""
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._owner_pid = 0
        self._log_start = 0

    @property
    def url(self) -> str:
        """Base URL of the API, as clients take it (``http://HOST:PORT/v1``)."""
        return f"{self.root}/v1"

    @property
    def root(self) -> str:
        """``http://HOST:PORT``, where the health check is; with a socket the host is a mere name."""
        if self.uds is not None:
            return "http://localhost"
        # "All addresses" is something to listen on, not to connect to.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def where(self) -> str:
        """Where it listens, for messages."""
        return self.url if self.uds is None else f"unix:{self.uds}"

    def start(self) -> None:
        """Starts the server and returns when it is healthy.

        Raises:
            VllmError: vLLM could not be run, died, or was not healthy within ``start_timeout_s``; the message ends
                with the last lines of its log. Nothing is left running then.
        """
        if self._supervisor is not None:
            raise VllmError(f"the vLLM server at {self.where} is already started; stop it first")
        self._check()
        if self.uds is not None:
            addresses.make_private_folder(self.uds.parent)
        else:
            self.port = self.port or addresses.free_port(self.host)
        with self._open_log() as log:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", str(SUPERVISOR), str(os.getpid()), str(GRACE_S), *self.command()],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                # Out of the terminal's reach: Ctrl-C goes to this process, which then stops the server in order.
                start_new_session=True,
            )
        self._owner_pid = os.getpid()
        atexit.register(self.stop)
        try:
            assert self._supervisor.stdout is not None
            line = self._supervisor.stdout.readline()
            self.pid = int(line) if line.strip() else None
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise

    def wait_for_other_process(self) -> None:
        """Returns when a server that another process starts at this address is healthy.

        Raises:
            VllmError: it was not within ``start_timeout_s``.
        """
        deadline = time.monotonic() + self.settings.start_timeout_s
        while not addresses.is_healthy(self.root, uds=self.uds):
            if time.monotonic() > deadline:
                raise VllmError(
                    f"the vLLM server at {self.where} was not ready after {self.settings.start_timeout_s:g} s; "
                    "the output of rank 0 says why"
                )
            time.sleep(HEALTH_POLL_S)

    def stop(self) -> None:
        """Ends the server and all its workers; returns when none is left. Does nothing when it is not started."""
        atexit.unregister(self.stop)
        supervisor, self._supervisor, self.pid = self._supervisor, None, None
        # A forked copy of this process inherits the object, but not the server.
        if supervisor is None or os.getpid() != self._owner_pid:
            return
        supervisor.terminate()
        supervisor.wait()
        if self.uds is not None:
            shutil.rmtree(self.uds.parent, ignore_errors=True)
        if supervisor.stdout is not None:
            supervisor.stdout.close()

    def poll(self) -> int | None:
        """Exit status of a server that ended by itself (128 + n when signal n ended it); None while it runs."""
        if self._supervisor is None:
            raise VllmError("the vLLM server is not started")
        return self._supervisor.poll()

    def __enter__(self) -> VllmServer:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def command(self) -> list[str]:
        """The server's command line."""
        command = [self.python, "-m", "vllm.entrypoints.openai.api_server", "--model", self.model]
        command += ["--served-model-name", self.served_model_name]
        command += ["--uds", str(self.uds)] if self.uds else ["--host", self.host, "--port", str(self.port)]
        if self.settings.max_model_len is not None:
            command += ["--max-model-len", str(self.settings.max_model_len)]
        if self.settings.gpu_memory_utilization is not None:
            command += ["--gpu-memory-utilization", str(self.settings.gpu_memory_utilization)]
        # One line per request would bury what the log is kept for.
        return [*command, "--disable-uvicorn-access-log", *self.settings.extra_args]

    def environment(self) -> dict[str, str]:
        """The server's environment variables."""
        env = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
        if self.python != sys.executable:
            # They point into this environment; another interpreter would load its packages from here.
            env.pop("PYTHONPATH", None)
            env.pop("PYTHONHOME", None)
        env.setdefault("VLLM_NO_USAGE_STATS", "1")
        # GiB; read by the CPU build only, which would else take a share of all memory.
        env.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        if self.is_local:
            env["HF_HUB_OFFLINE"] = "1"
        return env | dict(self.settings.env) | ({KEY_VARIABLE: self.api_key} if self.api_key else {})

    def log_tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines that the server has written since it was last started."""
        if self.log_path is None or not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            # 500 bytes a line are plenty, and keep a long log out of memory.
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - 500 * lines))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def _check(self) -> None:
        # A path that is no folder would be looked up on a hub, and the message would be about that.
        if not self.is_local and self.model.startswith(("/", ".", "~")):
            raise VllmError(f"the reasoner's model folder {self.model} does not exist")
        if "/" in self.python and not os.access(self.python, os.X_OK):
            raise VllmError(
                f"{self.python} is not an interpreter that can be run; name the python of vLLM's environment"
            )
        if self.uds is None and self.port and not addresses.port_is_free(self.host, self.port):
            raise VllmError(
                f"port {self.port} of {self.host} is taken by another program; stop that one or choose another port"
            )

    def _open_log(self) -> BinaryIO:
        if self.log_path is None:
            handle, name = tempfile.mkstemp(prefix=f"vllm-{self.port}-", suffix=".log")
            os.close(handle)
            self.log_path = Path(name)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        log = open(self.log_path, "ab", opener=private)  # noqa: SIM115 (the caller closes it)
        self._log_start = log.tell()
        return log

    def _wait_until_healthy(self) -> None:
        begin = time.monotonic()
        console = Console(stderr=True, highlight=False, markup=False)
        next_plain_line = PLAIN_PROGRESS_S
        with console.status("starting vLLM") as status:
            while not addresses.is_healthy(self.root, uds=self.uds):
                seconds = time.monotonic() - begin
                if (code := self.poll()) is not None:
                    raise VllmError(self._with_tail(f"vLLM ended with status {code} before it was ready"))
                if seconds > self.settings.start_timeout_s:
                    raise VllmError(self._with_tail(f"vLLM was not ready after {self.settings.start_timeout_s:g} s"))
                line = f"starting vLLM with {self.served_model_name}: {seconds:.0f} s  {self.log_tail(1)}"
                status.update(line[: console.width - 4])
                if not console.is_terminal and seconds >= next_plain_line:
                    console.print(line, soft_wrap=True)
                    next_plain_line += PLAIN_PROGRESS_S
                time.sleep(HEALTH_POLL_S)
        console.print(
            f"vLLM serves {self.served_model_name} at {self.where} ({time.monotonic() - begin:.0f} s)", soft_wrap=True
        )

    def _with_tail(self, message: str) -> str:
        return f"{message}. Its log is {self.log_path}; the last lines:\n{self.log_tail() or '(empty)'}"
