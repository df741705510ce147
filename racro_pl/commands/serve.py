"""``racro-pl serve``: a vLLM server for the reasoner, or the pipeline as a server; until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Sequence
from importlib.util import find_spec
from types import FrameType

from racro_pl.commands import serve_pipeline
from racro_pl.commands.guard import refuse_keys
from racro_pl.commands.suggestions import CommandParser
from racro_pl.pretrained.folder import check_served
from racro_pl.serving.addresses import KEY_VARIABLE
from racro_pl.serving.network import is_local_address
from racro_pl.serving.vllm_process import ServerSettings, VllmError, VllmServer

POLL_S = 0.5

CONFIG_SNIPPET = """\
Put this into the configuration of the run:

  model:
    reward:
      reasoner:
        class_path: racro_pl.reward.HttpReasoner
        init_args:
          url: {url}
          model: {model}{key}

Stop the server with Ctrl-C."""


class _StopRequested(BaseException):
    """SIGINT or SIGTERM has arrived. Like KeyboardInterrupt, no ``except Exception`` on the way may swallow it."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of ``serve``."""
    parser = CommandParser(prog="racro-pl serve", description="Start a server that training can use.")
    add_arguments(parser)
    args = parser.parse_args(argv)
    return serve_pipeline.run(args) if args.what == "pipeline" else run(args)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands of ``serve`` to its parser."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    serve_pipeline.add_arguments(commands)
    reasoner = commands.add_parser(
        "reasoner",
        help="a vLLM server for the text-only reasoner",
        description="Start a vLLM server for the text-only reasoner and keep it running until Ctrl-C or SIGTERM.",
        epilog="Arguments after -- go to vLLM as they are: racro-pl serve reasoner --model M -- --enforce-eager",
    )
    reasoner.add_argument("--model", required=True, help="model folder, or hub id")
    reasoner.add_argument("--python", help="interpreter of the environment that holds vLLM (default: this one)")
    reasoner.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    reasoner.add_argument("--port", type=int, default=8000, help="0 picks a free one (default: %(default)s)")
    reasoner.add_argument("--served-model-name", help="name that requests use (default: the folder's name or hub id)")
    reasoner.add_argument("--max-model-len", type=int, help="longest prompt and answer together, in tokens")
    reasoner.add_argument("--gpu-memory-utilization", type=float, help="share of the GPU's memory to take, 0 to 1")
    reasoner.add_argument(
        "--data-parallel-size", type=int, help="copies of the model at the one address, a GPU (or more) each"
    )
    reasoner.add_argument("--start-timeout", type=float, default=600.0, help="seconds (default: %(default)g)")
    reasoner.add_argument("--log", help="file for the server's output (default: a temporary file)")
    reasoner.add_argument("vllm_args", nargs="*", metavar="-- VLLM_ARGS", help="further arguments of vLLM itself")


def run(args: argparse.Namespace) -> int:
    """Serves until asked to stop.

    Returns:
        0 after Ctrl-C or SIGTERM, the ordinary ends of a server.

    Raises:
        RacroError: a key is among the arguments, where every user of the machine could read it; the model's folder
            holds code or pickles.
        VllmError: the server did not start, or has ended by itself.
    """
    refuse_keys(args.vllm_args, "VLLM_ARGS")
    extra_args = [*_data_parallel(args.data_parallel_size), *args.vllm_args]
    if args.python is None and find_spec("vllm") is None:
        raise VllmError(
            "vLLM is not installed in this environment. Install it (pip install 'racro-pl[vllm]'), or name the "
            "interpreter of one that has it: --python /path/to/venv/bin/python"
        )
    check_served(args.model, f"--model {args.model!r}", trusted="--trust-remote-code" in args.vllm_args)
    settings = ServerSettings(
        python=args.python,
        host=args.host,
        port=args.port,
        max_model_len=args.max_model_len,
        gpu_memory_utilization=args.gpu_memory_utilization,
        extra_args=extra_args,
        start_timeout_s=args.start_timeout,
    )
    server = VllmServer(args.model, settings, served_model_name=args.served_model_name, log_path=args.log)
    handlers = {signum: signal.signal(signum, _request_stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        with server:
            # vLLM reads its API key from there; the command line would show it to everybody on the machine.
            locked = bool(os.environ.get(KEY_VARIABLE))
            if not locked:
                who = "Every user of this machine"
                if not is_local_address(server.host):
                    who = f"Whoever can reach {server.host}"
                print(f"{who} can use this server: it asks for no key. Set {KEY_VARIABLE} for it to ask for one.")
            print(f"vLLM's log: {server.log_path}")
            key = f"\n          api_key_env: {KEY_VARIABLE}" if locked else ""
            print(CONFIG_SNIPPET.format(url=server.url, model=server.served_model_name, key=key), flush=True)
            while (code := server.poll()) is None:
                time.sleep(POLL_S)
            raise VllmError(
                f"vLLM ended, with status {code}. Its log is {server.log_path}; the last lines:\n{server.log_tail()}"
            )
    except _StopRequested:
        print("stopped", flush=True)
        return 0
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _data_parallel(size: int | None) -> list[str]:
    if size is None:
        return []
    if size < 1:
        raise VllmError(f"--data-parallel-size is {size}; expected 1 or more copies")
    return ["--data-parallel-size", str(size)]


def _request_stop(signum: int, frame: FrameType | None) -> None:
    # A second Ctrl-C must not interrupt the stop that the first one began: the server would keep running.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _StopRequested
