"""Judge what an evaluation has, on all ranks, and bring the verdicts together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from racro_pl.data.benchmarks.loading import LoadedBenchmark
from racro_pl.evaluation.headlines import HEADLINES
from racro_pl.evaluation.judging import judge_responses
from racro_pl.evaluation.metrics import BenchmarkScore
from racro_pl.evaluation.outcomes import Outcome, Tools
from racro_pl.evaluation.pipeline import Evaluation
from racro_pl.evaluation.progress import stage
from racro_pl.evaluation.results import Cell, Comparison, System, compare_systems, summarise
from racro_pl.evaluation.store import read_records
from racro_pl.files import private
from racro_pl.text.printable import json_line

Table = tuple[list[Cell], list[Comparison]]


def judge_all(evaluation: Evaluation, tools: Tools, folder: Path) -> Table:
    """Judge every answer with the plan's rule, each rank its own share.

    Verdicts go to ``verdicts*.jsonl`` in ``folder``, which is written anew; what comes back is the same on every rank.
    """
    rank, ranks = evaluation.place.rank, evaluation.place.ranks
    systems = evaluation.systems()
    total = len(systems) * sum(len(loaded.questions) for loaded in evaluation.benchmarks) // ranks
    name = "verdicts.jsonl" if rank == 0 else f"verdicts-rank{rank}.jsonl"
    cells: list[Cell] = []
    comparisons: list[Comparison] = []
    writing = open(folder / name, "w", encoding="utf-8", errors="replace", opener=private)  # noqa: SIM115
    with writing as file, stage("scoring", total, rank == 0) as advance:
        for loaded in evaluation.benchmarks:
            outcomes: dict[System, list[Outcome]] = {}
            for system in systems:
                metric = BenchmarkScore(HEADLINES[loaded.name], loaded.questions).to(evaluation.place.device)
                for index in range(rank, len(loaded.questions), ranks):
                    record = _judge(evaluation, loaded, index, system, tools, metric)
                    if record is not None:
                        file.write(json_line(record) + "\n")
                    advance()
                with metric.sync_context():
                    outcomes[system] = metric.outcomes()
                cells.append(_cell(evaluation, loaded, system, outcomes[system]))
            comparisons += compare_systems(HEADLINES[loaded.name], outcomes)
    return cells, comparisons


def _judge(
    evaluation: Evaluation, loaded: LoadedBenchmark, index: int, system: System, tools: Tools, metric: BenchmarkScore
) -> dict[str, Any] | None:
    question = loaded.questions[index]
    rule = HEADLINES[loaded.name].rule(evaluation.plan.rule)
    verdict = judge_responses(rule, question, evaluation.responses(question, system), tools)
    if verdict is None:
        return None
    metric.update(index, verdict.judgement)
    return {
        "benchmark": loaded.name, "id": question.id, **asdict(system), "rule": evaluation.plan.rule,
        "gold": question.answer, "extracted": verdict.judgement.extracted, "correct": verdict.judgement.correct,
        "response": verdict.response,
    }  # fmt: skip


def _cell(evaluation: Evaluation, loaded: LoadedBenchmark, system: System, outcomes: list[Outcome]) -> Cell:
    expected = loaded.benchmark.expected(loaded.split)
    unanswered = len(loaded.questions) - len(outcomes)
    return summarise(HEADLINES[loaded.name], system, outcomes, expected, unanswered, evaluation.plan.rule)


def read_verdicts(folder: Path) -> dict[tuple[str, str, System], dict[str, Any]]:
    """The records of all ranks, by benchmark, question id and system."""
    found = {}
    for record in _records(folder):
        system = System(record["captioner"], record["mode"], record["reasoner"])
        found[record["benchmark"], record["id"], system] = record
    return found


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    files: Iterable[Path] = sorted(folder.glob("verdicts*.jsonl"))
    for file in files:
        yield from read_records(file)
