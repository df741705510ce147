"""Answers as files that VLMEvalKit's scoring reads: the benchmark's own rows with a column ``prediction``."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from racro_pl.data.benchmarks import TableBenchmark
from racro_pl.data.benchmarks.loading import LoadedBenchmark
from racro_pl.data.benchmarks.table import read_rows
from racro_pl.data.readers.base import Drops, RowError
from racro_pl.evaluation.results import System
from racro_pl.files import private
from racro_pl.types import RacroError

FOLDER = "vlmevalkit"
_UNFIT = re.compile(r"[^\w.+-]+")


def vlmevalkit_file(loaded: LoadedBenchmark) -> Path:
    """The file of VLMEvalKit's that a benchmark was read from: its scoring needs the columns of that file.

    Raises:
        RacroError: the benchmark was read from another layout.
    """
    benchmark = loaded.benchmark
    files: tuple[Path, ...] = ()
    if isinstance(benchmark, TableBenchmark):
        files = benchmark.locate(loaded.settings.path, loaded.settings.split).files
    if len(files) != 1 or files[0].suffix != ".tsv":
        raise RacroError(
            f"export: {loaded.name} was not read from VLMEvalKit's .tsv file, whose columns its scoring needs; give "
            f"{loaded.name}=FILE.tsv, or leave export out"
        )
    return files[0]


def export_vlmevalkit(
    loaded: LoadedBenchmark,
    systems: Sequence[System],
    verdicts: Mapping[tuple[str, str, System], Mapping[str, Any]],
    folder: Path,
) -> list[Path]:
    """Write ``vlmevalkit/SYSTEM_DATASET.tsv`` for every system: VLMEvalKit reads them with ``PRED_FORMAT=tsv``.

    A question without an answer has no row: VLMEvalKit would count it as wrong. ``verdicts`` are records with
    ``response``, by benchmark, question id and system; ``folder`` is the run's.
    """
    source = vlmevalkit_file(loaded)
    benchmark = loaded.benchmark
    assert isinstance(benchmark, TableBenchmark)
    asked = {question.id for question in loaded.questions}
    rows: list[tuple[str, dict[str, Any]]] = []
    for row in read_rows([source], Drops(shown=0), images=False):
        try:
            name = benchmark.question(row).id
        except RowError:
            continue  # left out when the benchmark was read, and told then
        if name in asked:
            rows.append((name, {key: value for key, value in row.values.items() if key != "prediction"}))
    dataset = benchmark.splits[loaded.split].tsv or source.stem
    written = []
    (folder / FOLDER).mkdir(exist_ok=True)
    for system in systems:
        path = folder / FOLDER / f"{_UNFIT.sub('-', system.label).strip('-')}_{dataset}.tsv"
        with open(path, "w", encoding="utf-8", errors="replace", newline="", opener=private) as file:
            writer = csv.DictWriter(file, [*rows[0][1], "prediction"], delimiter="\t", quoting=csv.QUOTE_ALL)
            writer.writeheader()
            for name, values in rows:
                record = verdicts.get((loaded.name, name, system))
                if record is not None:
                    writer.writerow({**values, "prediction": record["response"]})
        written.append(path)
    return written
