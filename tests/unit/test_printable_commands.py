"""What commands and runs print and leave of hostile texts is shown as escapes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from racro_pl import cli
from racro_pl.commands import ask, doctor, score
from racro_pl.commands.data_check import run_check
from racro_pl.data.benchmarks import find_benchmark
from racro_pl.evaluation.report.gallery import GalleryItem
from racro_pl.evaluation.report.html import write_report
from racro_pl.evaluation.report.table import ResultsView
from racro_pl.evaluation.results import System
from racro_pl.evaluation.store import Store
from racro_pl.images import ImageError
from racro_pl.terminal import Console
from racro_pl.training.base import CaptionerModule
from racro_pl.training.callbacks import pictures
from racro_pl.training.callbacks.learning_report import _table
from racro_pl.training.callbacks.records import CaptionLog
from racro_pl.training.metrics.accuracy import Answered, PipelineAccuracy, Shown
from racro_pl.types import ImageRef, Question, Rewards
from tests.unit.evaluation.test_report import entries
from tests.unit.evaluation.toys import PLAIN, outcome, results
from tests.unit.test_printable_exits import EVIL, active, quiet, shown

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
    quiet(shown(ResultsView(results(PLAIN, found))))


def test_doctor(monkeypatch, capsys):
    finding = doctor.Finding(EVIL, "warn", EVIL, EVIL, (EVIL,))
    monkeypatch.setattr(doctor, "_checks", lambda options: [lambda: [finding]])
    doctor.main([])
    assert "[bold]:cat:" in quiet(capsys.readouterr().out)


def test_ask(capsys):
    ask._show(Console(width=400), EVIL, f"a caption\n{EVIL}")
    assert "[bold]:cat:[/]y" in quiet(capsys.readouterr().out)


# ------------------------------------------------------------------ what a run leaves

QUESTION = Question(EVIL, (), EVIL, EVIL, "math", category=EVIL)
REWARDS = Rewards((1.0,), {"correct": (1.0,)}, (True,), (None,), ((EVIL,),), ((EVIL,),))


def test_captions_of_a_run_can_be_looked_at(tmp_path):
    rollout = SimpleNamespace(
        question=QUESTION,
        texts=[EVIL],
        mask=[SimpleNamespace(sum=lambda: 3)],
        truncated=[False],
        adapter_version=0,
        role="caption",
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

    def encode(question, *_, **options):
        raise ImageError(EVIL)

    first = SimpleNamespace(is_global_zero=True)
    module = SimpleNamespace(
        captioner=SimpleNamespace(encode=encode), trainer=first, print=told.append, roles=("caption",)
    )
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
