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
from PIL import Image
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

import racro_pl
from racro_pl import cli
from racro_pl.commands import ask, doctor, score
from racro_pl.commands.data import run_check
from racro_pl.data.benchmarks import find_benchmark
from racro_pl.data.readers.base import Drops, RowError
from racro_pl.evaluation.report.gallery import GalleryItem
from racro_pl.evaluation.report.html import write_report
from racro_pl.evaluation.report.table import ResultsView
from racro_pl.evaluation.results import System
from racro_pl.evaluation.store import Store
from racro_pl.images import ImageError
from racro_pl.terminal import Console, get_logger
from racro_pl.text.printable import json_line, printable
from racro_pl.training.accuracy import Answered, PipelineAccuracy, Shown
from racro_pl.training.base import CaptionerModule
from racro_pl.training.callbacks import pictures
from racro_pl.training.callbacks.records import CaptionLog, _table
from racro_pl.types import ImageRef, Question, RacroError, Rewards
from tests.unit.evaluation.test_report import entries
from tests.unit.evaluation.toys import PLAIN, outcome, results

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


# ------------------------------------------------------------------ commands

ROWS = [
    {
        "id": f"{number}{EVIL}",
        "question": f"Which? {EVIL}",
        "options": [],
        "answer": "60",
        "subject": EVIL,
        "level": EVIL,
    }
    for number in range(2)
]


@pytest.fixture
def questions(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    path = tmp_path / "questions.jsonl"
    rows = [*(row | {"image": "a.png"} for row in ROWS), ROWS[0] | {"id": EVIL, "answer": "", "image": "a.png"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_data_check(questions, capsys, caplog):
    for name in ("own", "mathvision"):
        assert run_check(find_benchmark(name), str(questions), None, Console(width=400)) == 0
        printed = quiet(capsys.readouterr().out)
        assert "[bold]:cat:[/]y" in printed  # neither markup nor emoji
    assert active(caplog.text) == []


def test_score(questions, tmp_path, capsys):
    predictions = tmp_path / "[red]answers.jsonl"
    predictions.write_text("".join(json.dumps({"id": row["id"], "response": EVIL}) + "\n" for row in ROWS))
    other = tmp_path / "[blue]other.jsonl"
    other.write_text(json.dumps({"id": ROWS[0]["id"], "response": "60"}) + "\n")
    output = tmp_path / "scored.jsonl"
    given = ["--questions", str(questions), "--predictions", str(predictions), "--output", str(output)]
    assert score.main(["mathvision", *given, "--against", str(other)]) == 0
    printed = quiet(capsys.readouterr().out)
    assert "[blue]other" in printed
    assert active(output.read_text()) == []
    unknown = tmp_path / "unknown.jsonl"
    unknown.write_text(json.dumps({"id": EVIL + "?", "response": "60"}))
    assert cli.run(["score", "mathvision", "--questions", str(questions), "--predictions", str(unknown)]) == 1
    quiet(capsys.readouterr().err)


def test_tables_of_a_test(capsys):
    system = System(EVIL, "caption", EVIL)
    found = {system: [outcome("1", True, category=EVIL), outcome("2", False, None, category="other")]}
    quiet(shown(ResultsView(results(PLAIN, found), categories=True)))


def test_doctor(monkeypatch, capsys):
    finding = doctor.Finding(EVIL, "warn", EVIL, EVIL, (EVIL,))
    monkeypatch.setattr(doctor, "_checks", lambda options: [lambda: [finding]])
    doctor.main([])
    assert "[bold]:cat:" in quiet(capsys.readouterr().out)


def test_ask(capsys):
    ask._show(Console(width=400), EVIL, f"a caption\n{EVIL}", show=True)
    assert "[bold]:cat:[/]y" in quiet(capsys.readouterr().out)


# ------------------------------------------------------------------ what a run leaves

QUESTION = Question(EVIL, (), EVIL, EVIL, "math", category=EVIL)
REWARDS = Rewards((1.0,), {"correct": (1.0,)}, (True,), (None,), ((EVIL,),), ((EVIL,),))


def test_captions_of_a_run_can_be_looked_at(tmp_path):
    rollout = SimpleNamespace(
        question=QUESTION, texts=[EVIL], mask=[SimpleNamespace(sum=lambda: 3)], truncated=[False], adapter_version=0
    )
    trainer = SimpleNamespace(log_dir=str(tmp_path), global_step=1, world_size=1, global_rank=0)
    CaptionLog().on_train_batch_end(trainer, SimpleNamespace(last_step=[(rollout, REWARDS)]))
    [line] = (tmp_path / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    assert active(line) == []
    assert json.loads(line)["caption"] == EVIL


def test_records_of_an_evaluation(tmp_path):
    store = Store(tmp_path, "captions", ("id",))
    store.append({"id": EVIL, "text": EVIL})
    store.close()
    assert active((tmp_path / "captions.jsonl").read_text(encoding="utf-8")) == []
    assert Store(tmp_path, "captions", ("id",)).get((EVIL,)) == {"id": EVIL, "text": EVIL}


def test_names_of_metrics_are_no_controls_and_no_formulas():
    for hostile in (EVIL, "=cmd|' /C calc'!A0", "+1", "-1", "@sum(A1)", "\t=1"):
        metric = PipelineAccuracy([hostile, "other"], [])
        metric.update(Answered(Question("1", (), "q", "a", "math", category=hostile), "c", REWARDS, {}))
        for name in metric.compute():
            assert active(name) == []
            assert name[0].isalpha()  # a spreadsheet runs cells that begin with = + - @ or a tab
        assert active(shown(_table(metric.compute(), metric.compute()))) == []


def test_a_broken_image_in_training_is_told(tmp_path):
    told = []

    def encode(question):
        raise ImageError(EVIL)

    module = SimpleNamespace(captioner=SimpleNamespace(encode=encode), print=told.append)
    assert CaptionerModule.encode_readable(module, [QUESTION]) == []
    quiet(told[0])


def test_pictures_of_a_run(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(pictures, "_save", lambda figure, *place: figures.append(figure))
    pictures.draw_captions(
        tmp_path / "x.png", [[Image.new("RGB", (4, 4))]], [Answered(QUESTION, EVIL, REWARDS, {})], [Shown(EVIL, EVIL)]
    )
    texts = [text.get_text() for text in figures[0].texts]
    assert len(texts) >= 6
    assert [active(text) for text in texts] == [[]] * len(texts)
    quiet("\n".join(texts))


def test_the_page_of_a_test(tmp_path):
    system = System(EVIL, "caption", EVIL)
    found = results(PLAIN, {system: [outcome("1", True, category=EVIL)]})
    asked = Question(EVIL, (ImageRef(path=Path(EVIL.replace("\ud83d", ""))),), EVIL, EVIL, "math", category=EVIL)
    items = [GalleryItem("plain", asked, {EVIL: EVIL}, {system: list(entries(EVIL).values())[1]})]
    quiet(write_report(tmp_path, found, items).read_text(encoding="utf-8"))
