"""``racro-pl demo``: a page to ask captioners and reasoners about pictures."""

from __future__ import annotations

import argparse
from contextlib import closing

from racro_pl.commands.quiet import quiet_libraries
from racro_pl.commands.suggestions import CommandParser
from racro_pl.serving.network import is_local_address
from racro_pl.types import RacroError


def main(arguments: list[str]) -> int:
    """Run ``demo``; returns the exit code."""
    options = _parse(arguments)
    quiet_libraries()
    from racro_pl.commands.ask import default_captioner
    from racro_pl.demo import Demo
    from racro_pl.evaluation.settings import SamplingSettings, open_reasoner
    from racro_pl.pipeline import EMBEDDED_CAPTIONER, Pipeline

    trained = default_captioner()
    usual = {"before training": EMBEDDED_CAPTIONER}
    if trained != EMBEDDED_CAPTIONER:
        usual["after training"] = trained
    captioners = dict(map(_named, options.captioner)) or usual
    reasoners = dict(map(_named, options.reasoner)) or {
        "reasoner A": "embedded:figure-reasoner", "reasoner B": "embedded:figure-reasoner-b",
    }  # fmt: skip
    sampling = SamplingSettings(options.temperature, max_tokens=options.max_tokens)
    demo = Demo(
        {name: Pipeline(path, max_tokens=options.max_tokens) for name, path in captioners.items()},
        {name: open_reasoner(where, sampling) for name, where in reasoners.items()},
    )
    with closing(demo):
        for reasoner in demo.reasoners.values():
            reasoner.check()
        print(f"open http://{options.host}:{options.port} in a browser; Ctrl-C stops the page", flush=True)
        demo.launch(options.host, options.port)
    return 0


def _named(entry: str) -> tuple[str, str]:
    name, equals, path = entry.partition("=")
    if not equals or not name or not path:
        raise RacroError(f"got {entry!r}; expected NAME=PATH, or NAME=URL")
    return name, path


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = CommandParser(prog="racro-pl demo", description=__doc__)
    parser.add_argument(
        "--captioner", action="append", default=[], metavar="NAME=PATH",
        help="a captioner and its name on the page; may be given again (default: the quickstart's before and after)",
    )  # fmt: skip
    parser.add_argument(
        "--reasoner", action="append", default=[], metavar="NAME=URL|PATH", help="a reasoner; may be given again"
    )
    parser.add_argument("--temperature", type=float, default=0.6, help="of the reasoners (default: %(default)s)")
    parser.add_argument("--max_tokens", type=int, default=2048, help="of each text (default: %(default)s)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on: of this machine (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=7860, help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    if not is_local_address(options.host):
        raise RacroError(
            f"--host {options.host} can be reached by others, and the page asks for no password; listen on 127.0.0.1 "
            "and let a proxy with a password in front of it speak to others"
        )
    return options
