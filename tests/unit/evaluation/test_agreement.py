"""Agreement with verdicts that the benchmarks' authors published. The files are not part of the repository."""

import json
import os
from pathlib import Path

import pytest

from racro_pl.data.benchmarks import find_benchmark
from racro_pl.evaluation.outcomes import Tools
from racro_pl.evaluation.scoring import official, strict
from racro_pl.reward.grader import Grader

DATA = Path(os.environ.get("RACRO_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data")
VERDICTS = DATA / "verdicts"
MATHVISION = DATA / "mathvision" / "test_annotations.jsonl"

pytestmark = pytest.mark.skipif(
    not (VERDICTS.is_dir() and MATHVISION.is_file()),
    reason="needs the authors' verdicts: a folder with verdicts/ and mathvision/, named by RACRO_SHARED_DATA",
)


def rows_of(name):
    return [json.loads(line) for line in (VERDICTS / name).read_text(encoding="utf-8").splitlines()]


def judge(rule, questions, rows, field):
    with Grader(limit_s=100.0) as grader:  # a busy machine
        tools = Tools(grader)
        return [rule(questions[row.get("id") or row["pid"]], row[field] or "", tools).correct for row in rows]


def questions_of(name, path):
    return {question.id: question for question in find_benchmark(name).read(str(path), images=False).questions}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("gemini_pro", 0.98), ("internlm_xc2", 0.96)])
def test_mathvision(name, least):
    rows = rows_of(f"mathvision_{name}.jsonl")
    questions = questions_of("mathvision", MATHVISION)
    theirs = [row["correct"] for row in rows]
    exact = judge(official.mathvision, questions, rows, "response")
    assert sum(a == b for a, b in zip(exact, theirs, strict=True)) >= 0.995 * len(rows)
    ours = judge(strict.default, questions, rows, "response")
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= least * len(rows)
    assert sum(a and b for a, b in zip(ours, theirs, strict=True)) >= 0.993 * sum(theirs)


def test_mathvista():
    rows = rows_of("mathvista_chatgpt.jsonl")
    questions = questions_of("mathvista", VERDICTS / "mathvista_chatgpt.jsonl")
    # Two rows that their language model did not extract have no verdict.
    assert judge(official.mathvista, questions, rows, "extraction") == [bool(row["true_false"]) for row in rows]
