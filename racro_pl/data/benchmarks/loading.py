"""Benchmarks as they are named in settings (``mathvista``, ``dynamath=PATH``), read and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from racro_pl.data.benchmarks import find_benchmark
from racro_pl.data.benchmarks.base import Benchmark
from racro_pl.data.readers.ids import check_unique
from racro_pl.types import Question, RacroError


@dataclass
class BenchmarkSettings:
    """One benchmark; as text ``NAME``, ``NAME=PATH`` or, for questions of one's own, ``PATH.jsonl``."""

    benchmark: str
    """Name, see ``racro-pl data list``."""
    path: str | None = None
    """File, folder or hub id. Default: VLMEvalKit's file below ``$LMUData`` or ``~/LMUData``."""
    split: str | None = None
    """Default: the one that the file's name tells, else the first of docs/benchmarks.md that is there."""


@dataclass(frozen=True)
class LoadedBenchmark:
    """A benchmark with its questions."""

    benchmark: Benchmark
    settings: BenchmarkSettings
    split: str
    questions: list[Question]
    dropped: Counter[str]
    """Rows left out, by reason."""
    files: tuple[Path, ...] = ()
    """The tables that the questions stand in; none where they are made."""

    @property
    def name(self) -> str:
        """The benchmark's."""
        return self.benchmark.name

    def __str__(self) -> str:
        reasons = "".join(f", {count} left out: {reason}" for reason, count in self.dropped.most_common())
        expected = self.benchmark.splits[self.split].questions
        whole = f" of {expected}" if expected else ""
        return f"{self.benchmark.title} {self.split}: {len(self.questions)}{whole} questions{reasons}"


def parse_benchmark(entry: str | BenchmarkSettings) -> BenchmarkSettings:
    """A benchmark's settings, the short form written out.

    Raises:
        RacroError: there is no such benchmark; names the nearest.
    """
    if isinstance(entry, str):
        name, path = named_path(entry)
        if not name and path.lower().endswith(".jsonl"):
            name = "own"
        entry = BenchmarkSettings(name, path) if name else BenchmarkSettings(path)
    find_benchmark(entry.benchmark)
    return entry


def named_path(text: str) -> tuple[str, str]:
    """``NAME=REST`` or ``REST`` as name (or "") and rest; a URL's own equals signs do not make a name."""
    name, equals, rest = text.partition("=")
    return (name.strip(), rest.strip()) if equals and "/" not in name and ":" not in name else ("", text.strip())


def load_benchmarks(entries: Sequence[BenchmarkSettings], limit: int | None = None) -> list[LoadedBenchmark]:
    """Read several benchmarks, of each at most ``limit`` questions (:func:`first_questions`).

    Raises:
        RacroError: one is unknown, not found or empty, or is there twice.
    """
    if limit is not None and limit < 1:
        raise RacroError(f"limit is {limit}; expected 1 or more questions per benchmark, or none for all")
    refuse_doubles("benchmarks", [find_benchmark(entry.benchmark).name for entry in entries])
    return [_load(entry, limit) for entry in entries]


def _load(entry: BenchmarkSettings, limit: int | None) -> LoadedBenchmark:
    benchmark = find_benchmark(entry.benchmark)
    found = benchmark.read(entry.path, entry.split)
    questions = first_questions(benchmark, found.questions, limit)
    check_unique(benchmark.name, questions)
    if not questions:
        raise RacroError(f"{benchmark.name}: no usable question ({dict(found.dropped) or 'no rows'})")
    return LoadedBenchmark(benchmark, entry, found.split, questions, found.dropped, found.files)


def first_questions(benchmark: Benchmark, questions: Sequence[Question], limit: int | None) -> list[Question]:
    """At most ``limit`` questions, in their order; groups (DynaMath's seeds, WeMath's problems) whole, at least one.

    A part of a group would change what the headline means: a seed of which one variant is asked is no worst case.
    """
    if limit is None:
        return list(questions)
    sizes = Counter(benchmark.group(question) for question in questions)
    kept: set[str] = set()
    total = 0
    for name in dict.fromkeys(benchmark.group(question) for question in questions):
        total += sizes[name]
        if kept and total > limit:
            break
        kept.add(name)
    return [question for question in questions if benchmark.group(question) in kept]


def refuse_doubles(what: str, names: Sequence[str]) -> None:
    """Raise :class:`RacroError` when a name occurs twice."""
    doubles = sorted(name for name, count in Counter(names).items() if count > 1)
    if doubles:
        raise RacroError(f"{what}: the name {doubles[0]!r} is there twice; names must differ (NAME=PATH gives one)")
