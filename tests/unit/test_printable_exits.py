"""What strangers write does nothing where it comes out: terminal, log, tables, pictures, page, files of a run."""

from __future__ import annotations

import ast
import io
import json
import logging
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

import racro_pl
from racro_pl import cli
from racro_pl.data.readers.base import Drops, RowError
from racro_pl.terminal import Console, get_logger
from racro_pl.text.printable import json_line, printable
from racro_pl.types import RacroError

# The title of the window, the clipboard, colours, a cleared screen (C1), a reversed line, a forged line.
EVIL = (
    "x\x1b]0;t\x07\x1b]52;c;ZQ==\x07\x1b[31m\x9b2J\u202egnp\u2066\u200f\r\x08\x7f\u2028\ud83d\U000e0041[bold]:cat:[/]y"
)
JOINERS = "\u200c\u200d"


def active(text):
    """Characters that do something, but for tabs and line ends."""
    return [
        character
        for character in text
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in "\n\t" + JOINERS
    ]


def quiet(text):
    """Raise unless a text does nothing and shows that it might have."""
    assert active(text) == []
    assert "\\x1b" in text or "\\u001b" in text
    return text


# ------------------------------------------------------------------ the one function


def test_every_kind_of_active_character_is_shown_as_its_escape():
    assert printable("\x1b\x9b\u202e\ud83d\U000e0041\r") == r"\x1b\x9b\u202e\ud83d\U000e0041\r"
    assert printable("a\n\tb") == r"a\n\tb"
    assert printable("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"


@pytest.mark.parametrize("text", ["rød", "日本語", "می\u200cخواهم", "👩\u200d👩\u200d👧", "e\u0301", "a\u00a0b", "✓️"])
def test_what_people_write_stays(text):
    assert printable(text) == text


@given(st.text(st.characters(exclude_categories=[]), max_size=50))
def test_nothing_active_comes_through(text):
    for character in printable(text):
        assert unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(character) not in (
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        )
    assert printable(printable(text)) == printable(text)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.recursive(TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))
def test_a_line_of_json_reads_back_as_what_it_was(value):
    line = json_line(value)
    assert json.loads(line) == value
    assert "\n" not in line


def test_a_line_of_json_can_be_looked_at_and_written():
    line = json_line({EVIL: "rød"})
    assert active(line) == []
    assert "rød" in line
    line.encode()
    assert json.loads(line) == {EVIL: "rød"}


# ------------------------------------------------------------------ the terminal and the log


def shown(*things, **options):
    console = Console(file=io.StringIO(), width=400)
    for thing in things:
        console.print(thing, **options)
    return console.file.getvalue()


def test_whatever_the_console_prints_is_printable():
    table = Table(title=Text(EVIL))
    table.add_column(Text(EVIL))
    table.add_row(Text(EVIL))
    for thing in (Text(EVIL), Panel(Text(EVIL), title=Text(EVIL)), table):
        assert "[bold]:cat:[/]" in quiet(shown(thing))
    assert "[bold]:cat:[/]" in quiet(shown(EVIL, markup=False))
    # On a terminal the console's own sequences pass, and no other.
    console = Console(file=io.StringIO(), width=400, force_terminal=True, color_system="standard", legacy_windows=False)
    console.print(Text("red", style="red"), Text(EVIL))
    assert "\x1b[31mred\x1b[0m" in console.file.getvalue()
    assert console.file.getvalue().count("\x1b") == 2


def test_cells_are_as_wide_as_what_they_show():
    table = Table("a")
    table.add_row("\x1b\x1b\x1b")
    assert r"\x1b\x1b\x1b" in shown(table)


def test_every_module_speaks_through_these_exits():
    """Rich's own console, and loggers whose records are not looked at, are used nowhere."""
    root = Path(racro_pl.__file__).parent
    found = []
    for path in root.rglob("*.py"):
        if path.name == "terminal.py":
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        ours = any(isinstance(node, ast.ImportFrom) and node.module == "racro_pl.terminal" for node in nodes)
        for call in (ast.unparse(node) for node in nodes if isinstance(node, ast.Call)):
            raw = call.startswith(("logging.getLogger(__name__", "argparse.ArgumentParser("))
            if raw or (call.startswith("Console(") and not ours):
                found.append(f"{path.name}: {call}")
    assert found == []


def test_log_records_are_printable(caplog):
    log = get_logger("racro_pl.test_printable")
    assert get_logger("racro_pl.test_printable") is log
    assert len(log.filters) == 1
    with caplog.at_level(logging.WARNING):
        log.warning("server said %s, %d %%", EVIL, 5)
        Drops().add(EVIL, RowError("no answer", EVIL))
    assert caplog.messages[0].endswith(", 5 %")
    for message in caplog.messages:
        assert "\n" not in quiet(message)


def test_the_last_line_of_a_mistake(monkeypatch, capsys):
    def fail(arguments):
        raise RacroError(f"id {EVIL}\nwith a second line")

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: SimpleNamespace(main=fail))
    assert cli.run(["data", "list"]) == 1
    assert quiet(capsys.readouterr().err).endswith("\nwith a second line\n")
    assert cli.run([EVIL]) == 2
    quiet(capsys.readouterr().err)


def test_complaints_of_the_parsers(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    name = EVIL.replace("\ud83d", "")  # half a character is no YAML
    config.write_text(yaml.safe_dump({"trainer": {name: 1}, "model": {"policy": {name: name}}}))
    for command in (
        ["score", "own", EVIL, "--predictions", "x"], ["ask", "a.png", "q", f"--{EVIL}"],
            ["test", f"--{EVIL}"], ["fit", f"--{EVIL}=1"],
        ["fit", "--config", str(config)], ["test", "--config", str(config)],
    ):  # fmt: skip
        with pytest.raises(SystemExit, match="2"):
            cli.run(command)
        quiet(capsys.readouterr().err)
