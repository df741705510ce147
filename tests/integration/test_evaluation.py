"""`racro-pl test` as a user runs it: the embedded captioner and reasoner on the figure world."""

from __future__ import annotations

import json
import os
import shutil
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from racro_pl.cli import run
from racro_pl.evaluation.results import Results
from racro_pl.evaluation.store import Store
from tests.helpers.preloaded import CONTEXT
from tests.helpers.ranks import run_rank

LIMIT = 48


def arguments(runs: Path, *more: str) -> list[str]:
    return [
        "test", "--benchmarks", "figures", "--captioners",
        "[{name: it, path: 'embedded:figure-captioner', max_new_tokens: 16, batch_size: 4}]",
        "--reasoners", "embedded:figure-reasoner", "--limit", str(LIMIT), "--runs", str(runs), *more,
    ]  # fmt: skip


def records(folder: Path, kind: str) -> list[dict]:
    return [
        json.loads(line) for file in sorted(folder.glob(f"{kind}*.jsonl")) for line in file.read_text().splitlines()
    ]


def texts(folder: Path, kind: str) -> dict:
    """Every record by what names it: a repeated one would be lost here, so its number is checked apart."""
    found = records(folder, kind)
    keyed = {tuple(str(value) for name, value in record.items() if name != "text"): record["text"] for record in found}
    assert len(keyed) == len(found)
    return keyed


def cells(folder: Path) -> tuple:
    return Results.from_json((folder / "results.json").read_text()).cells


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a run that nothing disturbed."""
    runs = tmp_path_factory.mktemp("whole")
    assert run(arguments(runs)) == 0
    return runs / "test/version_0"


def test_three_ways_to_answer_stand_side_by_side(whole):
    found = {cell.system.mode: cell for cell in cells(whole)}
    assert set(found) == {"direct", "caption", "caption+tentative"}
    assert all((cell.n, cell.expected, cell.unanswered) == (LIMIT, 500, 0) for cell in found.values())
    assert len(records(whole, "captions")) == 2 * LIMIT  # one caption, one tentative answer: written once for all modes
    assert len(records(whole, "answers")) == 2 * LIMIT
    assert len(records(whole, "verdicts")) == 3 * LIMIT
    assert (whole / "report.html").stat().st_size > 10_000
    # The verdicts are those of the figure world itself: the reasoner is right where the caption states the fact.
    right = {record["id"] for record in records(whole, "verdicts") if record["mode"] == "caption" and record["correct"]}
    assert 0 < len(right) < LIMIT


def test_results_that_a_narrower_call_replaces_are_named(whole, tmp_path, capfd):
    shutil.copytree(whole.parents[1], tmp_path, dirs_exist_ok=True)
    assert run(arguments(tmp_path, "--modes", "direct")) == 0
    said = " ".join(capfd.readouterr().err.split())
    assert (
        "no longer Figures: it → figure-reasoner · caption, Figures: it → figure-reasoner · caption + tentative" in said
    )
    assert {cell.system.mode for cell in cells(tmp_path / "test/version_0")} == {"direct"}
    assert run(arguments(tmp_path)) == 0
    assert "no longer" not in capfd.readouterr().err
    assert cells(tmp_path / "test/version_0") == cells(whole)


def test_the_same_command_again_only_scores(whole, capfd):
    before = {path: path.read_bytes() for path in whole.glob("*s.jsonl")}
    results = cells(whole)
    assert run(arguments(whole.parents[1])) == 0
    assert "resuming" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in whole.glob("*s.jsonl")} == before
    assert cells(whole) == results
    assert not (whole.parent / "version_1").exists()


def run_to_the_third(kind: str, runs: Path, there: Connection) -> None:
    """Run until three records of a kind are on the disk, say so, and stay there, to be killed."""
    append = Store.append

    def stops(store: Store, record: dict) -> None:
        append(store, record)
        if store.path.stem == kind and store.path.read_bytes().count(b"\n") == 3:
            there.send(None)
            time.sleep(3600)

    Store.append = stops
    run(arguments(runs))


def test_a_killed_run_goes_on_and_gives_the_same_table(whole, tmp_path, capfd):
    folder = tmp_path / "test/version_0"
    for kind in ("captions", "answers"):
        here, there = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=run_to_the_third, args=(kind, tmp_path, there))
        process.start()
        there.close()  # a process that ends by itself leaves no other end open: recv() then raises
        try:
            here.recv()
        finally:
            process.kill()
            process.join()
        with (folder / f"{kind}.jsonl").open("ab") as file:
            file.write(b'{"benchmark": "figures", "id": "te')  # and the disk got half a line
    assert run(arguments(tmp_path)) == 0
    assert "resuming" in capfd.readouterr().err
    for kind in ("captions", "answers"):
        assert texts(folder, kind) == texts(whole, kind)
    assert cells(folder) == cells(whole)


@pytest.mark.slow  # what each rank reads and writes: tests/unit/evaluation/test_store.py
def test_two_ranks_give_the_table_of_one(whole, two_ranks, tmp_path):
    """Their launchers: `test_caption_ranks`."""
    assert two_ranks(run_rank, arguments(tmp_path, "--devices", "2", "--accelerator", "cpu")) == [0, 0]
    folder = tmp_path / "test/version_0"
    assert {path.name for path in folder.glob("captions*")} == {"captions.jsonl", "captions-rank1.jsonl"}
    for kind in ("captions", "answers"):
        assert texts(folder, kind) == texts(whole, kind)
    assert cells(folder) == cells(whole)


@pytest.mark.usefixtures("quick_refusal")
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--benchmarks", "mathvison=x.tsv"], "did you mean 'mathvision'"),
        (["--benchmarks", "mathvision=nowhere/MathVision.tsv"], "nowhere/MathVision.tsv"),
        (["--captioners", "nowhere/at/all"], "nowhere/at/all"),
        (["--reasoners", "http://127.0.0.1:9/v1"], "no reasoner at"),
        (["--rule", "official"], "has no rule 'official'"),
        (["--limit", "0"], "expected 1 or more"),
        (["--devices", "two"], "expected auto or a number"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_1(tmp_path, capfd, more, words):
    assert run(arguments(tmp_path, *more)) == 1
    message = capfd.readouterr().err
    assert words in message
    assert "Traceback" not in message


def test_answers_that_are_missing_are_told_and_can_be_asked_for_again(tmp_path, capfd):
    from tests.fakes.reasoner_server import FaultServer

    with FaultServer(["ok"] * 3 + ["400"], answer=lambda messages: r"\boxed{red}") as server:
        # The first "ok" goes to the check at the start.
        code = run(arguments(tmp_path, "--reasoners", f"flaky={server.url}/v1", "--modes", "[caption]", "--limit", "4"))
    output = capfd.readouterr()
    assert code == 1
    assert "2 answers are missing (flaky: HTTP 400 2)" in output.err
    folder = tmp_path / "test/version_0"
    assert [cell.unanswered for cell in cells(folder)] == [2]
    with FaultServer(["ok"], answer=lambda messages: r"\boxed{red}") as server:
        more = ["--reasoners", f"flaky={server.url}/v1", "--modes", "[caption]", "--limit", "4"]
        assert run(arguments(tmp_path, *more)) == 0
        assert len(server.chats) == 1 + 2
    assert [cell.unanswered for cell in cells(folder)] == [0]


def test_questions_of_one_s_own(tmp_path):
    from racro_pl.figure_world.world import figure_questions

    rows = []
    for question in figure_questions("test", 6):
        (tmp_path / f"{question.id}.png").write_bytes(question.images[0].data)
        rows.append({"id": question.id, "question": question.text, "answer": question.answer, "answer_type": "text",
                     "image": f"{question.id}.png", "category": question.category})  # fmt: skip
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(arguments(tmp_path, "--benchmarks", f"own={file}", "--modes", "[caption]")) == 0
    (cell,) = cells(tmp_path / "test/version_0")
    assert (cell.n, cell.unanswered, cell.complete) == (6, 0, True)
    assert set(cell.categories["category"]) == {question.category for question in figure_questions("test", 6)}


def test_ask_prints_every_stage(tmp_path, capfd):
    from racro_pl.figure_world.world import figure_questions

    question = figure_questions("test", 1)[0]
    image = tmp_path / "figures.png"
    image.write_bytes(question.images[0].data)
    command = ["ask", str(image), question.text, "--captioner", "embedded:figure-captioner"]
    assert run(command) == 0
    printed, remarks = capfd.readouterr()
    assert [word in printed for word in ("caption", "tentative answer", "answer of figure-reasoner")] == [True] * 3
    assert "reasoner: embedded:figure-reasoner, which knows drawn figures only" in " ".join(remarks.split())
    assert "captioner: " not in remarks
    assert run([*command, "--reasoner", "embedded:figure-reasoner", "--json"]) == 0
    printed_json, remarks = capfd.readouterr()
    assert "drawn figures only" not in remarks, "it was chosen"
    record = json.loads(printed_json)
    assert record["reasoner"] == "embedded:figure-reasoner"
    assert record["caption"] in printed
    assert record["answer"] is not None
    assert os.path.samefile(record["images"][0], image)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["none.png", "what ?"], "image file not found: none.png"), ([__file__, "what ?"], "not a readable")],
)
def test_ask_tells_a_bad_image_at_once(words, message, capfd):
    assert run(["ask", *words]) == 1
    assert message in capfd.readouterr().err
