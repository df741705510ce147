"""``racro-pl score``: score any model's outputs for a benchmark, offline."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from racro_pl.commands.suggestions import CommandParser
from racro_pl.data.benchmarks.loading import parse_benchmark
from racro_pl.evaluation.headlines import Headline, find_headline
from racro_pl.evaluation.outcomes import Outcome, Rule, Tools
from racro_pl.evaluation.predictions import KINDS, match_questions, read_predictions, read_rows, response_column
from racro_pl.evaluation.progress import stage
from racro_pl.evaluation.report.formatting import interval, on_common, p_value, paired
from racro_pl.evaluation.results import System, compare, summarise
from racro_pl.evaluation.scoring.judge import HttpJudge
from racro_pl.evaluation.statistics import mean
from racro_pl.reward.grader import Grader
from racro_pl.terminal import Console
from racro_pl.types import Question, RacroError

JUDGE_REQUESTS = 16
"""Responses that are scored at once when a judge helps."""


def main(arguments: list[str]) -> int:
    """Run ``score``; returns the exit code.

    Raises:
        RacroError: an input is missing or not what it should be.
    """
    options = _parser().parse_args(arguments)
    asked = parse_benchmark(options.benchmark)
    if asked.path and options.questions:
        raise RacroError(f"the questions are named twice: {asked.path} and --questions {options.questions}")
    options.questions = options.questions or asked.path
    headline = find_headline(asked.benchmark)
    rule = headline.rule(options.rule)
    if options.judge and options.rule != "vlmevalkit":
        raise RacroError(f"the rule {options.rule!r} asks no judge: leave --judge out, or give --rule vlmevalkit")
    with Grader() as grader, _judge(options) as judge:
        tools = Tools(grader, judge)
        scored = score_file(Path(options.predictions), headline, rule, tools, options)
        other = score_file(Path(options.against), headline, rule, tools, options) if options.against else None
    if options.output:
        write_scored(Path(options.output), scored.outcomes, Path(options.predictions))
    console = Console()
    report(console, headline, options.rule, scored)
    if other is not None:
        report_difference(console, headline, scored, other)
    if options.output:
        console.say(f"written: {options.output}")
    return 0


@dataclass(frozen=True)
class Scored:
    """One file of predictions, scored."""

    system: System
    """Named by the file."""
    outcomes: list[Outcome]
    questions: int
    """Questions that were found, with a prediction or without."""
    dropped: Counter[str]
    """Questions that could not be used, by reason."""


def score_file(path: Path, headline: Headline, rule: Rule, tools: Tools, options: argparse.Namespace) -> Scored:
    """Match a file's predictions with their questions and score them.

    Raises:
        RacroError: the file or the questions cannot be read, or do not fit together.
    """
    rows = read_rows(path)
    questions_at = options.questions
    if questions_at is None and any("answer" in row for _, row in rows):
        questions_at = str(path)
    found = headline.benchmark.read(questions_at, images=False)
    own = questions_at is not None and path.resolve() == Path(questions_at).resolve()
    column = options.response_field or response_column(rows)
    if column == "prediction" and not options.response_field:
        print(f"note: {path}: the responses are its column 'prediction' (VLMEvalKit's)", file=sys.stderr)
    predictions = read_predictions(path, rows, column, headline.benchmark if own else None)
    if options.rule == "official" and column == "response" and "extraction" in predictions.columns:
        print(
            "note: the official rule of some benchmarks works on the extracted answer; the file has a column "
            "'extraction': use --response-field extraction for it",
            file=sys.stderr,
        )
    questions = match_questions(predictions, found.questions)
    outcomes = score_all(rule, questions, predictions.responses, tools)
    return Scored(System(path.stem, "direct", None), outcomes, len(found.questions), found.dropped)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="racro-pl score",
        description="Score outputs for a benchmark: a file of rows with an id and a response.",
    )
    parser.add_argument("benchmark", metavar="BENCHMARK", help="such as mathvision, or own=QUESTIONS.jsonl")
    parser.add_argument("--predictions", required=True, metavar="FILE", help=f"rows with id and response: {KINDS}")
    parser.add_argument(
        "--questions",
        metavar="PATH",
        help="file, folder or hub id that holds the questions; images are not needed (default: the prediction file "
        "when it has a column 'answer', else VLMEvalKit's file below $LMUData or ~/LMUData)",
    )
    parser.add_argument("--response-field", metavar="F", help="its column (default: response, else prediction)")
    parser.add_argument(
        "--against", metavar="OTHER.jsonl", help="other predictions, to compare with on the questions that both have"
    )
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


@contextmanager
def _judge(options: argparse.Namespace) -> Iterator[HttpJudge | None]:
    """The judge, where one is named."""
    if not options.judge:
        yield None
        return
    try:
        judge = HttpJudge(options.judge, options.judge_model, api_key_env=options.judge_key_env)
    except ValueError as error:
        raise RacroError(f"--judge: {error}") from error
    with closing(judge):
        judge.check()
        yield judge


# ------------------------------------------------------------------ scoring


def score_all(rule: Rule, questions: Sequence[Question], responses: Mapping[str, str], tools: Tools) -> list[Outcome]:
    """Every question's response, scored; of a long response, its end (``scored_part``)."""

    def scored(question: Question) -> Outcome:
        return Outcome(question, rule(question, responses[question.id], tools))

    outcomes: list[Outcome] = []
    # Alone, a rule computes and one thread is all it needs; with a judge it waits for a server.
    with ThreadPoolExecutor(JUDGE_REQUESTS if tools.judge else 1) as pool, stage("scoring", len(questions)) as advance:
        begun = [pool.submit(scored, question) for question in questions]
        try:
            for future in begun:
                outcomes.append(future.result())
                advance()
        except BaseException:  # Ctrl-C too
            pool.shutdown(wait=False, cancel_futures=True)
            # Leaving the pool waits for the rules at work, and they for the judge; a rule may ask it several times.
            while isinstance(tools.judge, HttpJudge) and (left := [each for each in begun if not each.done()]):
                tools.judge.close()
                wait(left, timeout=0.1)
            raise
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


def report(console: Console, headline: Headline, rule: str, scored: Scored) -> None:
    """Print the scores: headline with its interval, accuracy, what was left out, and the breakdowns."""
    outcomes = scored.outcomes
    cell = summarise(headline, scored.system, outcomes, scored.questions, scored.questions - len(outcomes), rule)
    summary = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    summary.add_column(no_wrap=True)
    summary.add_column(justify="right", no_wrap=True)
    summary.add_column(style="dim", no_wrap=True)
    if cell.headline is None or cell.low is None or cell.high is None:
        summary.add_row(cell.headline_name, "no complete group")
    else:
        summary.add_row(cell.headline_name, _percent(cell.headline), f"95 % {interval(cell.low, cell.high)}")
    if cell.headline_name != "accuracy":
        summary.add_row("accuracy", _percent(mean([outcome.judgement.correct for outcome in outcomes])))
    for name, value in cell.figures.items():
        summary.add_row(escape(name), _percent(value))
    summary.add_row("n", f"{cell.n}")
    summary.add_row("unextracted", _percent(cell.unextracted))
    console.print(f"{headline.benchmark.title}, rule {rule}", style="bold", highlight=False)
    console.print(summary)
    if cell.unanswered:
        found = f"{cell.n} of {cell.expected} questions have a prediction"
        console.say(f"{found}; the other {cell.unanswered} do not count")
    for reason, count in scored.dropped.items():
        console.say(f"questions left out: {count} ({reason})")
    for breakdown, classes in cell.categories.items():
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column(escape(breakdown))
        for column in ("n", "accuracy"):
            table.add_column(column, justify="right", no_wrap=True)
        for label, (accuracy, n) in classes.items():
            table.add_row(escape(label), str(n), _percent(accuracy))
        console.print(table)


def report_difference(console: Console, headline: Headline, scored: Scored, other: Scored) -> None:
    """Print how the two differ on the questions that both have."""
    found = compare(headline, other.system, other.outcomes, scored.system, scored.outcomes)
    if found is None:
        console.say(f"no question has a prediction in both {other.system.captioner} and {scored.system.captioner}")
        return
    test = found.test
    console.say(
        f"against {other.system.captioner}, on {on_common(found)}: {headline.name} {paired(found)}; "
        f"better here {test.gained}, better there {test.lost}, exact test {p_value(test.p_value)}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
