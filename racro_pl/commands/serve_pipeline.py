"""``racro-pl serve pipeline``: captioner and reasoner as one OpenAI-compatible server."""

from __future__ import annotations

import argparse
import logging
import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from racro_pl.serving.addresses import is_private
from racro_pl.serving.network import is_local_address
from racro_pl.types import RacroError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from racro_pl.service.limits import Limits

KEY_VARIABLE = "RACRO_API_KEY"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


def add_arguments(commands: Any) -> None:
    """Adds ``pipeline`` to the subcommands of ``serve``."""
    parser = commands.add_parser(
        "pipeline",
        help="captioner and reasoner as one OpenAI-compatible server",
        description="Serve /v1/chat/completions: images become captions, the reasoner answers. See docs/serve.md.",
    )
    parser.add_argument("--captioner", help="run folder, adapter, model folder or hub id, or URL (default: as `ask`)")
    parser.add_argument("--captioner-model", help="the captioner's served name, with a URL that serves several")
    parser.add_argument("--reasoner", default="embedded:figure-reasoner", help="URL or path (default: %(default)s)")
    parser.add_argument("--mode", choices=("caption", "caption+tentative"), default="caption+tentative")
    parser.add_argument("--temperature", type=float, default=0.6, help="of the reasoner (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=2048, help="of each text (default: %(default)s)")
    parser.add_argument("--name", default="racro", help="model name that clients use (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="(default: %(default)s)")
    parser.add_argument("--uds", type=Path, help="a Unix socket in place of host and port")
    parser.add_argument("--key-file", type=Path, help=f"file with the key (mode 0600); or set {KEY_VARIABLE}")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a Host header to serve as well"
    )
    parser.add_argument(
        "--allow-image-urls", action="store_true", help="fetch images at public https addresses (default: refuse them)"
    )
    parser.add_argument("--working", type=int, default=32, help="requests answered at once (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        RacroError: captioner or reasoner cannot be used, or the address is open to others and there is no key.
    """
    from racro_pl.service.limits import Limits
    from racro_pl.service.server import bound, bound_uds
    from racro_pl.service.server import run as serve

    _check_numbers(args)
    limits = Limits(working=args.working, image_addresses=args.allow_image_urls)
    key = read_key(args.key_file)
    if key is None:
        _check_place(args)
    place = bound_uds(args.uds, open_to_others=key is not None) if args.uds else bound(args.host, args.port)
    with place as listener:
        app = _app(args, limits, key)
        logging.getLogger("racro_pl.service").setLevel(logging.INFO)
        logging.basicConfig(format="%(asctime)s %(message)s")
        where = f"unix socket {args.uds}" if args.uds else f"http://{url_host(args.host)}:{args.port}/v1"
        locked = "asks for a key" if key else "asks for no key"
        print(f"serving {args.name!r} at {where} ({locked}); Ctrl-C stops it", flush=True)
        serve(app, limits, listener)
    return 0


def _check_numbers(args: argparse.Namespace) -> None:
    for name in ("working", "max_tokens"):
        if getattr(args, name) < 1:
            raise RacroError(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected 1 or more")
    if not 0 <= args.temperature < math.inf:
        raise RacroError(f"--temperature is {args.temperature}; expected 0 (greedy) or more")
    if not 1 <= args.port <= 65_535:
        raise RacroError(f"--port is {args.port}; expected 1 to 65535")
    if not args.name.strip():
        raise RacroError(f"--name is {args.name!r}; expected the name that clients give as model")


def _check_place(args: argparse.Namespace) -> None:
    """Only this user may reach what asks for no key."""
    if args.uds is None and not is_local_address(args.host):
        raise RacroError(
            f"--host {args.host} can be reached by others: set {KEY_VARIABLE} or --key-file, or listen on 127.0.0.1"
        )
    if args.uds is not None and not is_private(args.uds.absolute().parent):
        raise RacroError(
            f"--uds {args.uds}: other users can enter {args.uds.absolute().parent}, or it is not there; choose a "
            f"folder of your own (mkdir -m 700), or set {KEY_VARIABLE} or --key-file"
        )


def _app(args: argparse.Namespace, limits: Limits, key: str | None) -> ASGIApp:
    from racro_pl.commands.ask import default_captioner
    from racro_pl.commands.quiet import quiet_libraries
    from racro_pl.evaluation.settings import CaptionerSettings, SamplingSettings, open_reasoner
    from racro_pl.evaluation.writers import open_writer
    from racro_pl.pipeline import torch_device
    from racro_pl.service.app import Parts, build_app
    from racro_pl.service.captions import CaptionBatcher
    from racro_pl.service.decoding import ImageDecoder
    from racro_pl.service.eyes import Eyes

    quiet_libraries()
    captioner = args.captioner or default_captioner()
    settings = CaptionerSettings(captioner, "captioner", max_new_tokens=args.max_tokens, model=args.captioner_model)
    writer = open_writer(settings, torch_device("auto"))
    reasoner = open_reasoner(args.reasoner, SamplingSettings(args.temperature, max_tokens=args.max_tokens))
    reasoner.check()
    writer.check()
    print(f"captioner: {captioner}; reasoner: {args.reasoner}; mode: {args.mode}")
    batcher, decoder = CaptionBatcher(writer), ImageDecoder(limits)
    parts = Parts(Eyes(batcher, decoder, args.mode, limits), batcher, decoder, reasoner, args.name)
    return build_app(parts, limits, served_hosts(args.host, args.port, args.allow_host), key)


def url_host(host: str) -> str:
    """A host as URLs have it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def served_hosts(host: str, port: int, allowed: list[str]) -> frozenset[str]:
    """The ``Host`` headers to serve: the address, for a loopback one this machine's names too, and those given."""
    names = {url_host(host), *(LOOPBACK_NAMES if is_local_address(host) else ()), *allowed}
    return frozenset(names | {f"{name}:{port}" for name in names if not name.rsplit("]", 1)[-1].count(":")})


def read_key(file: Path | None) -> str | None:
    """The clients' key: from a file that only its owner can read, else from the environment.

    Raises:
        RacroError: the file is missing, open to others, or its key is unusable.
    """
    if file is None:
        key = os.environ.get(KEY_VARIABLE)
        if key is None:
            return None
    else:
        try:
            if stat.S_IMODE(file.stat().st_mode) & 0o077:
                raise RacroError(f"--key-file {file} can be read by others; run chmod 600 {file}")
            key = file.read_text(encoding="utf-8")
        except OSError as error:
            raise RacroError(f"--key-file {file}: {error.strerror}") from error
    key = key.strip()
    if len(key) < 16 or not key.isascii() or not key.isprintable():
        raise RacroError(
            "the key is shorter than 16 characters, or holds characters that no header takes; "
            f"try {KEY_VARIABLE}=$(openssl rand -hex 32)"
        )
    return key
