"""The metric on one process and on two: the same score, however the questions are dealt out."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from racro_pl.evaluation.metrics import BenchmarkScore, metric_names
from racro_pl.evaluation.outcomes import Judgement
from racro_pl.evaluation.statistics import bootstrap_interval
from tests.unit.evaluation.toys import PLAIN, WORST, question

NAMES = ("1/a", "1/b", "2/a", "2/b", "3/a", "3/b", "4/a")
RIGHT = (True, True, True, False, False, False, True)
EXTRACTED = ("A", "A", "A", "B", None, "B", "A")


def score(benchmark, indices):
    metric = BenchmarkScore(benchmark, [question(name) for name in NAMES])
    for index in indices:
        metric.update(index, Judgement(EXTRACTED[index], RIGHT[index]))
    return metric


def shown(metric):
    return {name: metric.compute()[name] for name in ("accuracy", "unextracted_share", "questions")}


def test_headline_and_figures():
    # groups: 1 right, 2 and 3 wrong, 4 right = 2 of 4; single answers 4 of 7; one not extracted
    found = score(WORST, range(7)).compute()
    low, high = bootstrap_interval([1.0, 0.0, 0.0, 1.0])
    assert found == {
        "worst_case": 0.5,
        "worst_case_low": low,
        "worst_case_high": high,
        "average": pytest.approx(4 / 7),
        "unextracted_share": pytest.approx(1 / 7),
        "unanswered_share": 0.0,
        "questions": 7.0,
    }
    assert list(found) == metric_names(WORST)


def test_what_was_not_scored_does_not_count():
    assert shown(score(PLAIN, [0, 3])) == {"accuracy": 0.5, "unextracted_share": 0.0, "questions": 2.0}
    assert score(PLAIN, [0, 3]).compute()["unanswered_share"] == pytest.approx(5 / 7)
    nothing = score(PLAIN, []).compute()
    assert math.isnan(nothing["accuracy"])
    assert nothing["questions"] == 0


def test_a_question_seen_twice_counts_once_and_has_no_second_chance():
    metric = score(PLAIN, [0, 0, 3])
    assert shown(metric) == {"accuracy": 0.5, "unextracted_share": 0.0, "questions": 2.0}
    metric.update(0, Judgement(None, False))
    assert shown(metric) == {"accuracy": 0.0, "unextracted_share": 0.5, "questions": 2.0}


def test_reset_and_pickle():
    metric = pickle.loads(pickle.dumps(score(PLAIN, [0, 3])))
    assert metric.compute()["questions"] == 2
    metric.reset()
    assert metric.scored.sum() == 0


def test_an_unknown_question_is_refused():
    with pytest.raises(IndexError, match="question 7: expected 0 to 6"):
        score(PLAIN, range(7)).update(7, Judgement("A", True))


SHARDS = {
    "uneven": ([0, 2, 3, 4, 6], [1, 5]),
    "empty": (list(range(7)), []),
    "padded": ([0, 2, 4, 6], [1, 3, 5, 0]),
}


def _rank(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {name: score(WORST, shards[rank]).compute() for name, shards in SHARDS.items()}
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    # Forked: a new interpreter would import torch again, twice.
    multiprocessing.start_processes(_rank, (str(tmp_path),), nprocs=2, start_method="fork")
    expected = score(WORST, range(7)).compute()
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert found == dict.fromkeys(SHARDS, expected)
