"""``score`` on files of VLMEvalKit and lmms-eval; own questions are named alike everywhere."""

from __future__ import annotations

import csv
import json
import zipfile

import pytest

from racro_pl.commands import data, score
from racro_pl.data.benchmarks.loading import BenchmarkSettings, load_benchmarks
from racro_pl.data.benchmarks.sources import xlsx
from racro_pl.evaluation.exporting import export_vlmevalkit, vlmevalkit_file
from racro_pl.evaluation.results import System
from racro_pl.types import RacroError
from tests.unit.evaluation import benchmark_files
from tests.unit.evaluation.test_score_command import lines_of

ROWS = [
    {"index": 1, "question": "How many?", "choices": "[]", "answer": "60", "category": "counting", "prediction": "60"},
    {"index": 2, "question": "Which?", "choices": "['a', 'b']", "answer": "B", "category": "logic", "prediction": "B"},
    {"index": 3, "question": "Which?", "choices": "['a', 'b']", "answer": "A", "category": "logic", "prediction": None},
]
"""As VLMEvalKit writes them: the benchmark's columns without the image, and the prediction."""


def write_tsv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)


def write_json(path, rows):
    # An empty cell of a data frame is NaN, which VLMEvalKit writes as such.
    filled = [{name: float("nan") if value is None else value for name, value in row.items()} for row in rows]
    path.write_text(json.dumps(filled))


def write_xlsx(path, rows):
    book = pytest.importorskip("openpyxl").Workbook()
    book.active.append(list(rows[0]))
    for row in rows:
        book.active.append(list(row.values()))
    book.save(path)


WRITERS = {"tsv": write_tsv, "json": write_json, "xlsx": write_xlsx}


@pytest.mark.parametrize("kind", WRITERS)
def test_vlmevalkits_result_files_are_scored_by_themselves(tmp_path, capsys, kind):
    path = tmp_path / f"model_MathVision.{kind}"
    WRITERS[kind](path, ROWS)
    assert score.main(["mathvision", "--predictions", str(path)]) == 0
    printed = capsys.readouterr()
    assert "accuracy 66.67 %" in lines_of(printed.out)
    assert "unextracted 33.33 %" in lines_of(printed.out)
    assert "the responses are its column 'prediction'" in printed.err


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_with_other_columns_is_told(tmp_path, kind):
    path = tmp_path / f"other.{kind}"
    WRITERS[kind](path, [{"index": 1, "frage": "?", "prediction": "60", "answer": "60"}])
    with pytest.raises(RacroError, match=r"is not a file of MathVision: it lacks the column question.*frage") as raised:
        score.main(["mathvision", "--predictions", str(path)])
    assert "\n" not in str(raised.value)


def test_a_broken_or_too_large_xlsx_is_told(tmp_path, monkeypatch):
    pytest.importorskip("openpyxl")
    path = tmp_path / "x.xlsx"
    path.write_bytes(b"no zip")
    with pytest.raises(RacroError, match="is no .xlsx file"):
        score.main(["mathvision", "--predictions", str(path)])
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("xl/workbook.xml", "<nothing")
    with pytest.raises(RacroError, match="is no readable .xlsx file"):
        score.main(["mathvision", "--predictions", str(path)])
    write_xlsx(path, ROWS)
    monkeypatch.setattr(xlsx, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(RacroError, match="the limit is 1000"):
        score.main(["mathvision", "--predictions", str(path)])


def test_a_row_of_a_table_that_cannot_be_read_is_an_error(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("index\tquestion\tprediction\n1\t?\t60\n2\t?\n")
    with pytest.raises(RacroError, match=r"1 rows cannot be read \(wrong number of cells 1\)"):
        score.main(["mathvision", "--predictions", str(path)])


def log_row(place, response, **document):
    return {"doc_id": place, "doc": document, "target": "x", "resps": response, "filtered_resps": ["cut"], "acc": 1}


QUESTION = {"question": "How many?", "options": [], "subject": "counting", "level": 1}


def test_lmms_evals_sample_logs_are_scored_by_themselves(tmp_path, capsys):
    rows = [log_row(n, [["It is 60." if n else "So: 61."]], id=str(n), answer="60", **QUESTION) for n in range(4)]
    path = tmp_path / "samples_mathvision.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    score.main(["mathvision", "--predictions", str(path)])
    assert "accuracy 75.00 %" in lines_of(capsys.readouterr().out)


def test_a_log_with_several_responses_is_refused(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(log_row(0, [["60", "61"]], id="1", answer="60", **QUESTION)))
    with pytest.raises(RacroError, match="samples.jsonl:1: not one response: document 0 has 2"):
        score.main(["mathvision", "--predictions", str(path)])


def test_a_log_without_its_documents_is_told(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({"doc_id": 0, "resps": [["60"]]}))
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"id": "1", "answer": "60", **QUESTION}))
    with pytest.raises(RacroError, match="samples.jsonl:1 has no id; .* Columns found: doc_id, response"):
        score.main(["mathvision", "--questions", str(questions), "--predictions", str(path)])


@pytest.mark.parametrize("form", ["own={}", "{}"])
def test_own_questions_are_named_alike_everywhere(tmp_path, capsys, form):
    from racro_pl.data import FigureWorldReader

    (tmp_path / "a.png").write_bytes(FigureWorldReader(train=1).read("train").questions[0].images[0].data)
    questions = tmp_path / "mine.jsonl"
    questions.write_text(json.dumps({"id": "1", "image": "a.png", "question": "How many?", "answer": "60"}))
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"id": "1", "response": "60"}))
    name = form.format(questions)
    assert data.main(["check", name]) == 0
    score.main([name, "--predictions", str(answers)])
    assert "accuracy 100.00 %" in lines_of(capsys.readouterr().out)
    (tmp_path / "a.png").unlink()  # answers are scored without images
    score.main([name, "--predictions", str(answers)])
    assert "accuracy 100.00 %" in lines_of(capsys.readouterr().out)
    with pytest.raises(RacroError, match="named twice"):
        score.main([name, "--questions", "x.jsonl", "--predictions", str(answers)])


def test_answers_are_exported_as_vlmevalkit_writes_them(tmp_path, capsys):
    source = tmp_path / "MathVision_MINI.tsv"
    pictured = [{**row, "image": benchmark_files.base64_png()} for row in ROWS]
    benchmark_files.write_tsv(source, [{k: v for k, v in row.items() if k != "prediction"} for row in pictured])
    loaded = load_benchmarks([BenchmarkSettings("mathvision", str(source))])[0]
    system = System("a/b", "direct", None)
    said = {"1": 'It is\n"60".\t', "2": "A"}  # the third got no answer
    verdicts = {("mathvision", name, system): {"response": text} for name, text in said.items()}
    (path,) = export_vlmevalkit(loaded, [system], verdicts, tmp_path)
    assert path == tmp_path / "vlmevalkit" / "a-b-direct_MathVision_MINI.tsv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["index"], row["prediction"]) for row in rows] == list(said.items())
    assert list(rows[0]) == ["index", "question", "choices", "answer", "category", "prediction"]
    score.main(["mathvision", "--predictions", str(path)])
    assert "accuracy 50.00 %" in lines_of(capsys.readouterr().out)


def test_only_what_came_from_vlmevalkits_file_is_exported():
    with pytest.raises(RacroError, match="figures was not read from VLMEvalKit's .tsv file"):
        vlmevalkit_file(load_benchmarks([BenchmarkSettings("figures")], 1)[0])
