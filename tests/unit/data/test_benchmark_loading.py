"""Benchmarks as they are named in settings, and a limit that keeps groups whole."""

from __future__ import annotations

import pytest

from racro_pl.data.benchmarks.loading import BenchmarkSettings, first_questions, load_benchmarks, parse_benchmark
from racro_pl.types import RacroError
from tests.unit.evaluation.toys import Plain, Worst, question


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("mathvista", BenchmarkSettings("mathvista")),
        ("dynamath=/data/x y.tsv", BenchmarkSettings("dynamath", "/data/x y.tsv")),
        ("own=mine.jsonl", BenchmarkSettings("own", "mine.jsonl")),
        ("data/mine.jsonl", BenchmarkSettings("own", "data/mine.jsonl")),
    ],
)
def test_short_forms(entry: str, expected: BenchmarkSettings) -> None:
    assert parse_benchmark(entry) == expected


def test_an_unknown_benchmark_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(RacroError, match="unknown benchmark 'mathvist'; did you mean 'mathvista'"):
        parse_benchmark("mathvist=/data/x.tsv")


def test_a_limit_keeps_groups_whole() -> None:
    names = ["1/a", "2/a", "3/a", "1/b", "2/b", "3/b"]
    asked = [question(name) for name in names]

    def kept(benchmark: Plain, limit: int | None) -> list[str]:
        return [each.id for each in first_questions(benchmark, asked, limit)]

    assert kept(Plain(), 4) == names[:4]
    assert kept(Worst(), None) == names
    assert kept(Worst(), 5) == kept(Worst(), 4) == ["1/a", "2/a", "1/b", "2/b"]
    assert kept(Worst(), 1) == ["1/a", "1/b"]


def test_what_cannot_be_loaded_is_one_line() -> None:
    with pytest.raises(RacroError, match="the name 'figures' is there twice"):
        load_benchmarks([BenchmarkSettings("figures"), BenchmarkSettings("Figures")])
    with pytest.raises(RacroError, match="limit is 0; expected 1 or more"):
        load_benchmarks([BenchmarkSettings("figures")], limit=0)
    assert len(load_benchmarks([BenchmarkSettings("figures")], limit=7)[0].questions) == 7
