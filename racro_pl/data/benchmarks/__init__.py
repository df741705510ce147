"""The benchmarks, one file each, by name."""

from __future__ import annotations

import difflib

from racro_pl.data.benchmarks.base import Benchmark, SplitInfo
from racro_pl.data.benchmarks.dynamath import DynaMath
from racro_pl.data.benchmarks.logicvista import LogicVista
from racro_pl.data.benchmarks.mathverse import MathVerse
from racro_pl.data.benchmarks.mathvision import MathVision
from racro_pl.data.benchmarks.mathvista import MathVista
from racro_pl.data.benchmarks.mmmu import MMMU
from racro_pl.data.benchmarks.own import Own
from racro_pl.data.benchmarks.table import TableBenchmark
from racro_pl.data.benchmarks.wemath import WeMath
from racro_pl.data.benchmarks.worlds import Figures, Reckoning
from racro_pl.types import RacroError

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        MathVista(),
        MathVision(),
        MathVerse(),
        MMMU(),
        WeMath(),
        DynaMath(),
        LogicVista(),
        Figures(),
        Reckoning(),
        Own(),
    )
}
"""In the order of the paper's table; the drawn worlds and the user's own questions last."""

__all__ = ["BENCHMARKS", "Benchmark", "SplitInfo", "TableBenchmark", "find_benchmark"]


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its name, its title or the name of VLMEvalKit's file; case, dashes and the like do not matter.

    Raises:
        RacroError: there is none such; names the nearest.

    Examples:
        >>> find_benchmark("MathVista_MINI").name
        'mathvista'
    """
    known = {_plain(alias): benchmark for benchmark in BENCHMARKS.values() for alias in _aliases(benchmark)}
    if _plain(name) in known:
        return known[_plain(name)]
    near = difflib.get_close_matches(_plain(name), known, 1)
    hint = f"did you mean {known[near[0]].name!r}? " if near else ""
    raise RacroError(f"unknown benchmark {name!r}; {hint}known are {', '.join(BENCHMARKS)}")


def _aliases(benchmark: Benchmark) -> list[str]:
    names = [benchmark.name, benchmark.title]
    if isinstance(benchmark, TableBenchmark):
        names += [name for split in benchmark.splits for name in benchmark.tsv_names(split)]
    return names


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
