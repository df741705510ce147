"""``racro-pl score``: judge anybody's outputs for a benchmark, offline."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from racro_pl.data.readers.base import ReadResult
from racro_pl.evaluation.benchmarks import Benchmark, find_benchmark
from racro_pl.evaluation.outcomes import Outcome, Rule, Tools
from racro_pl.evaluation.progress import stage
from racro_pl.evaluation.scoring.judge import HttpJudge
from racro_pl.evaluation.scoring.predictions import match_questions, read_predictions, read_rows
from racro_pl.reward.grader import Grader
from racro_pl.types import Question, RacroError

JUDGE_REQUESTS = 16
"""Responses that are judged at once when a judge helps."""


def main(arguments: list[str]) -> int:
    """Run ``score``; returns the exit code.

    Raises:
        RacroError: an input is missing or not what it should be.
    """
    options = _parser().parse_args(arguments)
    benchmark = find_benchmark(options.benchmark)
    rule = _rule(benchmark, options.rule, options.judge)
    path = Path(options.predictions)
    rows = read_rows(path)
    if options.questions is None and any("answer" in row for _, row in rows):
        options.questions = options.predictions
    found = benchmark.read(options.questions, images=False)
    own = options.questions is not None and path.resolve() == Path(options.questions).resolve()
    predictions = read_predictions(path, rows, options.response_field, benchmark if own else None)
    questions = match_questions(predictions, found.questions)
    with Grader() as grader:
        judge = _judge(options)
        try:
            outcomes = judge_all(rule, questions, predictions.responses, Tools(grader, judge))
        finally:
            if judge is not None:
                judge.close()
    if options.output:
        write_scored(Path(options.output), outcomes, predictions.path)
    console = Console()
    if options.rule == "official" and options.response_field == "response" and "extraction" in predictions.columns:
        print(
            "note: the official rule of some benchmarks works on the extracted answer; the file has a column "
            "'extraction': use --response-field extraction for it",
            file=sys.stderr,
        )
    report(console, benchmark, options.rule, outcomes, found)
    if options.output:
        console.print(f"written: {escape(options.output)}", soft_wrap=True, highlight=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="racro-pl score",
        description="Judge outputs for a benchmark: a file with one JSON object a line, with an id and a response.",
    )
    parser.add_argument("benchmark", metavar="BENCHMARK", help="such as mathvision, MathVista_MINI")
    parser.add_argument("--predictions", required=True, metavar="FILE.jsonl", help="rows with an id and a response")
    parser.add_argument(
        "--questions",
        metavar="PATH",
        help="file, folder or hub id that holds the questions; images are not needed (default: the prediction file "
        "when it has a column 'answer', else VLMEvalKit's file below $LMUData or ~/LMUData)",
    )
    parser.add_argument("--response-field", default="response", metavar="F", help="its column (default: %(default)s)")
    parser.add_argument("--output", metavar="SCORED.jsonl", help="write id, extracted and correct here, one row a line")
    parser.add_argument(
        "--rule",
        default="strict",
        help="strict (default: judge-free, no credit for a non-answer), vlmevalkit, or official (the authors' script, "
        "where there is one; MathVista's works on the extraction, MathVision's on the raw response)",
    )
    parser.add_argument("--judge", metavar="URL", help="OpenAI-compatible server that helps the rule vlmevalkit")
    parser.add_argument("--judge-model", metavar="NAME", help="model of the judge (default: the only one it serves)")
    parser.add_argument("--judge-key-env", metavar="VAR", help="environment variable with the judge's API key")
    return parser


def _rule(benchmark: Benchmark, name: str, judge: str | None) -> Rule:
    if name not in benchmark.rules:
        raise RacroError(f"{benchmark.title} has no rule {name!r}; it has {', '.join(benchmark.rules)}")
    if judge and name != "vlmevalkit":
        raise RacroError(f"the rule {name!r} asks no judge: leave --judge out, or give --rule vlmevalkit")
    return benchmark.rules[name]


def _judge(options: argparse.Namespace) -> HttpJudge | None:
    if not options.judge:
        return None
    try:
        judge = HttpJudge(options.judge, options.judge_model, api_key_env=options.judge_key_env)
    except ValueError as error:
        raise RacroError(f"--judge: {error}") from error
    judge.check()
    return judge


# ------------------------------------------------------------------ scoring


def judge_all(rule: Rule, questions: Sequence[Question], responses: Mapping[str, str], tools: Tools) -> list[Outcome]:
    """Every question's response, judged; of a long response, its end (``scoring.limits``)."""

    def judged(question: Question) -> Outcome:
        return Outcome(question, rule(question, responses[question.id], tools))

    outcomes = []
    # Alone, a rule computes and one thread is all it needs; with a judge it waits for a server.
    with ThreadPoolExecutor(JUDGE_REQUESTS if tools.judge else 1) as pool, stage("scoring", len(questions)) as advance:
        for outcome in pool.map(judged, questions):
            outcomes.append(outcome)
            advance()
    return outcomes


def write_scored(path: Path, outcomes: Sequence[Outcome], predictions: Path) -> None:
    """``id``, ``extracted`` and ``correct``, one row a line.

    Raises:
        RacroError: the file cannot be written, or is the prediction file.
    """
    if path.exists() and path.samefile(predictions):
        raise RacroError(f"--output {path} is the prediction file itself; give another name")
    try:
        with path.open("w", encoding="utf-8") as file:
            for outcome in outcomes:
                row = {"id": outcome.question.id, **vars(outcome.judgement)}
                file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise RacroError(f"cannot write --output {path}: {error.strerror}") from error


# ------------------------------------------------------------------ report


def report(console: Console, benchmark: Benchmark, rule: str, outcomes: Sequence[Outcome], found: ReadResult) -> None:
    """Print the figures: accuracy, the headline where that is another, what was left out, and the breakdowns."""
    right = sum(outcome.judgement.correct for outcome in outcomes)
    unextracted = sum(outcome.judgement.extracted is None for outcome in outcomes)
    total = len(found.questions)
    summary = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    summary.add_column(no_wrap=True)
    summary.add_column(justify="right", no_wrap=True)
    scores = benchmark.group_scores(outcomes)
    if benchmark.headline != "accuracy":
        value = _percent(sum(scores.values()), len(scores)) if scores else "no complete group"
        summary.add_row(f"{benchmark.headline} (headline, of {len(scores)} groups)", value)
    summary.add_row("accuracy", _percent(right, len(outcomes)))
    for name, figure in benchmark.figures(outcomes).items():
        summary.add_row(escape(name), _percent(figure, 1))
    summary.add_row("n", f"{len(outcomes)}")
    summary.add_row("unextracted", _percent(unextracted, len(outcomes)))
    console.print(f"{benchmark.title}, rule {rule}", style="bold", highlight=False)
    console.print(summary)
    if len(outcomes) < total:
        console.print(
            f"{len(outcomes)} of {total} questions have a prediction; the other {total - len(outcomes)} do not count",
            highlight=False,
        )
    for reason, count in found.dropped.items():
        console.print(f"questions left out: {count} ({escape(reason)})", highlight=False)
    for name, classes in _breakdowns(benchmark, outcomes).items():
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column(escape(name))
        for column in ("n", "right", "accuracy"):
            table.add_column(column, justify="right", no_wrap=True)
        for label, marks in sorted(classes.items()):
            table.add_row(escape(label), str(len(marks)), str(sum(marks)), _percent(sum(marks), len(marks)))
        console.print(table)


def _breakdowns(benchmark: Benchmark, outcomes: Sequence[Outcome]) -> dict[str, dict[str, list[bool]]]:
    found: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        for name, label in benchmark.categories(outcome.question).items():
            found[name][label].append(outcome.judgement.correct)
    return found


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f} %"
