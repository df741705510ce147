"""Score an evaluation's answers on all ranks: a rule's verdict on each question, and what they sum up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from racro_pl.data.benchmarks.loading import LoadedBenchmark
from racro_pl.evaluation.headlines import HEADLINES
from racro_pl.evaluation.metrics import BenchmarkScore
from racro_pl.evaluation.outcomes import Judgement, Outcome, Rule, Tools
from racro_pl.evaluation.pipeline import Evaluation
from racro_pl.evaluation.progress import stage
from racro_pl.evaluation.results import Cell, Comparison, System, compare_systems, summarise
from racro_pl.evaluation.store import read_records
from racro_pl.files import private
from racro_pl.text.comparison import quick_equal
from racro_pl.text.latex import normalize
from racro_pl.text.printable import json_line
from racro_pl.types import Question

Table = tuple[list[Cell], list[Comparison]]


@dataclass(frozen=True)
class Verdict:
    """A system's answer to one question, scored."""

    response: str
    """Of several samples, the first whose answer is the majority's."""
    judgement: Judgement


def score_all(evaluation: Evaluation, tools: Tools, folder: Path) -> Table:
    """Score every answer with the plan's rule, each rank its own share.

    Verdicts go to ``verdicts*.jsonl`` in ``folder``, which is written again; what comes back is the same on every rank.
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
                    record = _record(evaluation, loaded, index, system, tools, metric)
                    if record is not None:
                        file.write(json_line(record) + "\n")
                    advance()
                with metric.sync_context():
                    outcomes[system] = metric.outcomes()
                cells.append(_cell(evaluation, loaded, system, outcomes[system]))
            comparisons += compare_systems(HEADLINES[loaded.name], outcomes)
    return cells, comparisons


def _record(
    evaluation: Evaluation, loaded: LoadedBenchmark, index: int, system: System, tools: Tools, metric: BenchmarkScore
) -> dict[str, Any] | None:
    question = loaded.questions[index]
    rule = HEADLINES[loaded.name].rule(evaluation.plan.rule)
    verdict = score_responses(rule, question, evaluation.responses(question, system), tools)
    if verdict is None:
        return None
    metric.update(index, verdict.judgement)
    return {
        "benchmark": loaded.name, "id": question.id, **asdict(system), "rule": evaluation.plan.rule,
        "gold": question.answer, "extracted": verdict.judgement.extracted, "correct": verdict.judgement.correct,
        "response": verdict.response,
    }  # fmt: skip


def _cell(evaluation: Evaluation, loaded: LoadedBenchmark, system: System, outcomes: list[Outcome]) -> Cell:
    expected = loaded.benchmark.splits[loaded.split].questions
    unanswered = len(loaded.questions) - len(outcomes)
    return summarise(HEADLINES[loaded.name], system, outcomes, expected, unanswered, evaluation.plan.rule)


def score_responses(rule: Rule, question: Question, responses: Sequence[str], tools: Tools) -> Verdict | None:
    """The verdict on the answer that most responses give (of equally many, the first given).

    A response without an answer has no vote, unless none has one.

    Returns:
        None when there is no response.
    """
    if not responses:
        return None
    scored = [Verdict(response, rule(question, response, tools)) for response in responses]
    groups: list[list[Verdict]] = []
    for verdict in scored:
        extracted = verdict.judgement.extracted
        if extracted is None:
            continue
        group = next((each for each in groups if _same(extracted, each[0].judgement.extracted or "")), None)
        if group is None:
            groups.append(group := [])
        group.append(verdict)
    # Of equal counts the first; the gold answer has no say in which answers are the same.
    return max(groups, key=len)[0] if groups else scored[0]


def _same(first: str, second: str) -> bool:
    return normalize(first).casefold() == normalize(second).casefold() or quick_equal(first, second) is True


def read_verdicts(folder: Path) -> dict[tuple[str, str, System], dict[str, Any]]:
    """The records of all ranks, by benchmark, question id and system."""
    found = {}
    for file in sorted(folder.glob("verdicts*.jsonl")):
        for record in read_records(file):
            system = System(record["captioner"], record["mode"], record["reasoner"])
            found[record["benchmark"], record["id"], system] = record
    return found
