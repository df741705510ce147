"""More ranks than questions: one has nothing to do, and is there whenever all ranks do something together."""

from __future__ import annotations

import json

import pytest

from tests.fakes.runs import metrics
from tests.helpers.ranks import Ranks, run_rank
from tests.integration import test_evaluation
from tests.integration.test_resume import arguments

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


def test_a_run_validates_on_fewer_questions_than_ranks(two_ranks: Ranks, tmp_path):
    words = arguments(tmp_path, *TWO, "--data.reader.init_args.validation", "1", "--trainer.max_steps", "2")
    assert two_ranks(run_rank, [*words, "--trainer.callbacks.init_args.questions", "1"]) == [0, 0]
    folder = tmp_path / "quickstart/version_0"
    assert [float(row["val/questions"]) for row in metrics(folder) if "val/questions" in row] == [1.0]
    assert json.loads((folder / "held_out.json").read_text())["after"]["questions"] == 1


def test_a_benchmark_has_fewer_questions_than_ranks(two_ranks: Ranks, tmp_path):
    words = test_evaluation.arguments(tmp_path, "--devices", "2", "--accelerator", "cpu", "--limit", "1")
    assert two_ranks(run_rank, words) == [0, 0]
    assert {(cell.n, cell.unanswered) for cell in test_evaluation.cells(tmp_path / "test/version_0")} == {(1, 0)}
