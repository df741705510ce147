import json
import re
import time
from contextlib import closing

import pytest

from racro_pl.commands import score
from racro_pl.evaluation import predictions
from racro_pl.evaluation.outcomes import Tools
from racro_pl.evaluation.scoring import judge
from racro_pl.types import Question, RacroError
from tests.fakes.reasoner_server import FaultServer

QUESTIONS = [
    {"id": "1", "question": "How many?", "options": [], "answer": "60", "subject": "counting", "level": 1},
    {"id": "2", "question": "Which?", "options": ["A", "B", "C"], "answer": "B", "subject": "logic", "level": 2},
    {"id": "3", "question": "Which?", "options": ["A", "B", "C"], "answer": "C", "subject": "logic", "level": 2},
]
ANSWERS = [{"id": "1", "response": "60"}, {"id": "2", "response": r"\boxed{B}"}, {"id": "3", "response": "?"}]


@pytest.fixture
def write(tmp_path):
    def write(name, rows):
        path = tmp_path / name
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def files(write):
    return ["--questions", write("questions.jsonl", QUESTIONS), "--predictions", write("answers.jsonl", ANSWERS)]


def lines_of(text):
    """Lines with single spaces, intervals left out."""
    return [re.sub(r" 95 % \[.*\]", "", " ".join(line.split())) for line in text.splitlines()]


def test_scores_are_printed_and_written(files, tmp_path, capsys):
    scored = tmp_path / "scored.jsonl"
    assert score.main(["mathvision", *files, "--output", str(scored)]) == 0
    printed = lines_of(capsys.readouterr().out)
    assert "MathVision, rule strict" in printed
    assert "accuracy 66.67 %" in printed  # 2 of 3
    assert "unextracted 33.33 %" in printed
    assert "logic 2 50.00 %" in printed
    assert [json.loads(line) for line in scored.read_text().splitlines()] == [
        {"id": "1", "extracted": "60", "correct": True},
        {"id": "2", "extracted": "B", "correct": True},
        {"id": "3", "extracted": None, "correct": False},
    ]


def test_two_files_are_compared_on_their_common_questions(files, write, capsys):
    other = write("other.jsonl", [{"id": "1", "response": "61"}, {"id": "2", "response": "B"}])
    assert score.main(["mathvision", *files, "--against", other]) == 0
    printed = capsys.readouterr().out
    assert "95 % [" in printed
    # Right here: 1 and 2; right there: 2.
    assert "against other, on 2 common questions: accuracy +50.0" in printed
    assert "better here 1, better there 0, exact test p = 1.000" in printed


def test_predictions_that_carry_the_questions_are_enough(write, capsys):
    rows = [{**question, **answer} for question, answer in zip(QUESTIONS, ANSWERS, strict=True)]
    score.main(["MathVision", "--predictions", write("all.jsonl", rows)])
    assert "accuracy 66.67 %" in lines_of(capsys.readouterr().out)


def test_mathvista_official_on_the_extraction(write, capsys):
    common = {"question_type": "multi_choice", "answer_type": "text", "choices": ["odd", "even"], "question": "?"}
    rows = [
        {"pid": 7, "answer": "odd", "response": "I cannot tell.", "extraction": "N/A", **common},
        {"pid": 8, "answer": "even", "response": "It is (B).", "extraction": "B", **common},
    ]
    path = write("vista.jsonl", rows)
    score.main(["mathvista", "--predictions", path, "--rule", "official", "--response-field", "extraction"])
    assert "accuracy 100.00 %" in lines_of(capsys.readouterr().out)  # "N/A" is nearer to "odd" than to "even"
    score.main(["mathvista", "--predictions", path])
    assert "accuracy 50.00 %" in lines_of(capsys.readouterr().out)
    score.main(["mathvista", "--predictions", path, "--rule", "official"])
    assert "--response-field extraction" in capsys.readouterr().err


def test_questions_without_a_prediction_do_not_count_and_are_told(write, capsys):
    questions = write("questions.jsonl", QUESTIONS)
    score.main(["mathvision", "--questions", questions, "--predictions", write("few.jsonl", ANSWERS[:2])])
    printed = capsys.readouterr().out
    assert "accuracy 100.00 %" in lines_of(printed)
    assert "2 of 3 questions have a prediction" in printed


def test_other_id_columns_numbers_and_nothing_as_responses(write, capsys):
    rows = [{"index": 1, "text": 60}, {"index": 2, "text": None}]
    questions = write("questions.jsonl", QUESTIONS)
    predictions = write("few.jsonl", rows)
    score.main(["mathvision", "--questions", questions, "--predictions", predictions, "--response-field", "text"])
    printed = lines_of(capsys.readouterr().out)
    assert "accuracy 50.00 %" in printed
    assert "unextracted 50.00 %" in printed


def test_a_headline_of_its_own(write, capsys):
    common = {"question": "?", "answer_type": "float", "ground_truth": "2", "answer": "2"}
    rows = [
        {"id": str(number), "qid": "0", "varid": str(number), "index": str(number), **common, "response": response}
        for number, response in ((1, "2"), (2, "3"))
    ]
    score.main(["dynamath", "--predictions", write("dyna.jsonl", rows)])
    printed = lines_of(capsys.readouterr().out)
    assert "worst case 0.00 %" in printed
    assert "accuracy 50.00 %" in printed


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["{"], ["bad.jsonl:1", "not a JSON object"]),
        (["[1]"], ["bad.jsonl:1", "got list"]),
        (["[" * 100_000], ["bad.jsonl:1", "not a JSON object"]),
        ([], ["no predictions"]),
        ([ANSWERS[0], {"response": "5"}], ["bad.jsonl:2", "no id", "pid"]),
        ([{"id": "1", "output": "5"}], ["no column 'response'", "--response-field", "id, output"]),
        ([{"id": "1", "response": ["5"]}], ["holds a list"]),
        ([*ANSWERS, ANSWERS[0] | {"response": "61"}], ["bad.jsonl:1 and bad.jsonl:4 both have the id '1'"]),
        ([*ANSWERS, {"id": "99", "response": "5"}], ["1 id ('99') of 4", "3 questions", "'1', '2', '3'"]),
        ([{"id": str(n), "response": "5"} for n in range(10, 20)], ["10 ids ('10', '11', '12', ...)"]),
    ],
)
def test_a_bad_prediction_file_is_told(write, rows, words):
    files = ["--questions", write("questions.jsonl", QUESTIONS), "--predictions", write("bad.jsonl", rows)]
    with pytest.raises(RacroError) as error:
        score.main(["mathvision", *files])
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["mathvison"], ["did you mean 'mathvision'"]),
        (["wemath", "--rule", "official"], ["no rule 'official'", "strict, vlmevalkit"]),
        (["mathvision", "--judge", "http://127.0.0.1:1"], ["asks no judge"]),
        (["mathvision", "--rule", "vlmevalkit", "--judge", "nowhere"], ["--judge"]),
        (["mathvision", "--predictions", "not-there.jsonl"], ["not found: not-there.jsonl"]),
        (["mathvision", "--questions", "not-there.jsonl"], ["not-there.jsonl"]),
        (["mathvision", "--output", "not-there/scored.jsonl"], ["cannot write --output"]),
    ],
)
def test_bad_arguments_are_told(files, change, words):
    with pytest.raises(RacroError) as error:
        score.main([change[0], *files, *change[1:]])
    for word in words:
        assert word in str(error.value)


def test_the_prediction_file_is_not_overwritten(files):
    with pytest.raises(RacroError, match="prediction file itself"):
        score.main(["mathvision", *files, "--output", files[-1]])


def test_a_line_has_a_limit(write, monkeypatch):
    monkeypatch.setattr(predictions, "MAX_LINE_BYTES", 1000)
    files = ["--questions", write("questions.jsonl", QUESTIONS)]
    with pytest.raises(RacroError, match="long.jsonl:1: line too long: the limit is 1000 bytes"):
        score.main(["mathvision", *files, "--predictions", write("long.jsonl", [{"id": "1", "response": "x" * 1000}])])


def test_a_long_response_is_scored_by_its_end(write, capsys):
    rows = [{"id": "1", "response": "{" * 2_000_000 + " So the answer is 60."}]
    files = ["--questions", write("questions.jsonl", QUESTIONS), "--predictions", write("long.jsonl", rows)]
    score.main(["mathvision", *files])
    assert "accuracy 100.00 %" in lines_of(capsys.readouterr().out)


def test_an_interrupt_does_not_wait_for_a_judge_that_hangs(monkeypatch):
    monkeypatch.setattr(judge, "DEADLINE_S", 60.0)
    questions = [Question(str(number), (), "?", "1", "math") for number in range(40)]
    asked: set[str] = set()
    begun = time.monotonic()

    def rule(question, response, tools):
        if question.id == "0":
            while server.in_flight < score.JUDGE_REQUESTS - 1:
                time.sleep(0.01)
            raise KeyboardInterrupt
        asked.add(question.id)
        for sample in range(3):  # an answer that is None makes rules ask again
            assert tools.judge.ask("?", sample) is None

    responses = {question.id: "" for question in questions}
    with (
        FaultServer(["hang"]) as server,
        closing(judge.HttpJudge(server.url, "tiny")) as hung,
        pytest.raises(KeyboardInterrupt),
    ):
        score.score_all(rule, questions, responses, Tools(None, hung))
    assert time.monotonic() - begun < 60
    assert len(asked) < 39  # those whose turn had not come were left out


def test_a_judge_helps(files, capsys):
    with FaultServer(answer=lambda messages: "C") as server:
        score.main(["mathvision", *files, "--rule", "vlmevalkit", "--judge", server.url])
    assert "accuracy 100.00 %" in lines_of(capsys.readouterr().out)
    score.main(["mathvision", *files, "--rule", "vlmevalkit"])
    assert "accuracy 66.67 %" in lines_of(capsys.readouterr().out)
