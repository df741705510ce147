"""The command line: which command, and how mistakes are told. Heavy imports wait until a command needs them."""

from __future__ import annotations

import importlib
import os
import select
import sys
from collections.abc import Callable
from typing import TextIO

from racro_pl import __version__
from racro_pl.files import place_error
from racro_pl.text.printable import printable
from racro_pl.types import RacroError

COMMANDS = {
    "fit": ("lightning", "train a captioner                      --config FILE [--model.… --data.… --trainer.…]"),
    "validate": ("lightning", "accuracy on the validation split       --config FILE --ckpt_path CKPT"),
    "test": ("test", "captioners x reasoners x benchmarks    --config FILE [--captioners … --reasoners …]"),
    "ask": ("ask", 'one question about a picture           IMAGE... "QUESTION" [--captioner … --reasoner …]'),
    "caption": ("caption", "a caption for every picture            FOLDER|FILE.jsonl [--captioner … --output …]"),
    "score": ("score", "score a model's answers, offline       BENCHMARK --predictions FILE.jsonl"),
    "data": ("data", "list and check benchmark files         list | check NAME [PATH] | check --config FILE"),
    "export": ("export", "an adapter or a model for others       RUN OUT [--merge] [--push HUB_ID]"),
    "doctor": ("doctor", "check what a run needs                 [--config FILE] [--reasoner URL]"),
    "demo": ("demo", "a page to ask about pictures           [--captioner NAME=PATH --reasoner NAME=URL …]"),
    "init": ("published", "copy a configuration to edit           [NAME]"),
    "schema": ("schema", "JSON schema of configurations          fit | test"),
    "serve": ("serve", "start a server                         reasoner --model PATH | pipeline"),
}
"""Command name to the module of ``racro_pl.commands`` whose ``main(arguments)`` runs it, and its line in the help."""

FIRST_COMMAND = "racro-pl fit --config quickstart"


def help_text() -> str:
    """What ``racro-pl --help`` prints."""
    lines = [
        f"racro-pl {__version__}: teach a captioner, through a frozen reasoner, to write what a question needs",
        "",
        "usage: racro-pl COMMAND [options]        racro-pl COMMAND --help tells a command's options",
        "",
        *(f"  {name:<10}{summary}" for name, (_, summary) in COMMANDS.items()),
        "",
        f"start here: {FIRST_COMMAND}      (no network, no GPU, minutes)",
        "",
        "A configuration is a program: the classes that it names are imported and run. Those of other packages than",
        "racro_pl, lightning and torch need --allow-imports on the command line (fit, validate, test, doctor).",
    ]
    return "\n".join(lines)


def run(arguments: list[str]) -> int:
    """Run one command line and return the exit code.

    A mistake that the user can mend (:class:`RacroError`) is one message; anything else is a bug and keeps its
    traceback. ``RACRO_DEBUG=1`` shows the traceback of mistakes too. Where whatever read the output has ended
    (``| head``), so does the command, without a word and with status 1; ``fit`` alone continues.
    """
    _open_closed_streams()
    try:
        return _run(arguments)
    except BrokenPipeError:
        closed = [stream for stream in (sys.stdout, sys.stderr) if _reader_is_gone(stream)]
        if not closed:  # of a server or a process: a bug
            raise
        for stream in closed:
            # What is still buffered goes nowhere when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 1


def _open_closed_streams() -> None:
    """Let a command that was started without a standard stream (``>&-``) read and write nothing there.

    Python then has None in its place. The next file that is opened would get its number too, and what a library or a
    process of its own writes to standard output would end up in that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _reader_is_gone(stream: TextIO) -> bool:
    try:
        watched = select.poll()
        watched.register(stream.fileno(), select.POLLOUT)
        return any(events & (select.POLLERR | select.POLLHUP) for _, events in watched.poll(0))
    except (AttributeError, OSError, ValueError):  # no file of the system, or no poll (Windows)
        return False


def _written(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Run a command; output that cannot be written fails here, and not when the interpreter ends."""
    try:
        status = main(arguments)
    except SystemExit:  # a parser's, after --help for instance
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return status


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text(), flush=True)
        return 0
    if arguments[0] == "--version":
        print(__version__, flush=True)
        return 0
    if arguments[0] not in COMMANDS:
        from racro_pl.commands.suggestions import did_you_mean

        meant = did_you_mean(arguments[0], COMMANDS) or f"; expected one of {', '.join(COMMANDS)}"
        print(f"racro-pl: unknown command {arguments[0]!r}{meant}", file=sys.stderr)
        return 2
    # Spinning OpenMP threads make small CPU steps many times slower when cores are shared; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from racro_pl.commands.published import with_paths

    named, arguments = arguments, with_paths(arguments)
    if sys.argv[1:] == named:
        sys.argv[1:] = arguments  # read again by Lightning, also in processes that it launches
    name = COMMANDS[arguments[0]][0]
    if arguments in (["fit"], ["validate"], ["test"]):
        first = "racro-pl test --config test_figures" if arguments == ["test"] else FIRST_COMMAND
        print(f"racro-pl {arguments[0]}: no --config; try `{first}`, or `racro-pl init` for others", file=sys.stderr)
        return 2
    module = importlib.import_module(f"racro_pl.commands.{name}")
    try:
        # LightningCLI parses its subcommand itself.
        return _written(module.main, arguments if name == "lightning" else arguments[1:])
    except (RacroError, OSError) as error:
        mistake = place_error(error) if isinstance(error, OSError) else error
        if mistake is None or os.environ.get("RACRO_DEBUG"):
            raise
        print(f"\nracro-pl {arguments[0]}: {printable(str(mistake), lines=True)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nracro-pl {arguments[0]}: stopped", file=sys.stderr)
        return 130
