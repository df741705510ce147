"""A file of model outputs: one JSON object a line, with the id of a question and a response to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from racro_pl.data.benchmarks import Benchmark, TableBenchmark
from racro_pl.data.benchmarks.sources.rows import Row, row_of_log
from racro_pl.data.benchmarks.table import read_rows as read_table
from racro_pl.data.readers.base import Drops, RowError
from racro_pl.data.readers.fields import plain_text
from racro_pl.data.readers.ids import UniqueIds
from racro_pl.data.readers.lines import json_lines
from racro_pl.types import Question, RacroError

MAX_LINE_BYTES = 16_000_000
"""Longest line of a prediction file."""
KINDS = "one JSON object a line (.jsonl, lmms-eval's sample logs too), or VLMEvalKit's .xlsx, .tsv or .json"
ID_COLUMNS = ("id", "pid", "index", "question_id", "sample_index")
"""Columns that may hold a row's id; of several, the first that is there counts."""
_NAMED = 3


@dataclass(frozen=True)
class Predictions:
    """A prediction file."""

    path: Path
    responses: Mapping[str, str]
    """By the question's id, in the order of the file."""
    columns: frozenset[str]
    """All columns of the file."""


def read_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a prediction file, each with its place for messages (``answers.jsonl:17``).

    One JSON object a line, lmms-eval's sample logs among them; or VLMEvalKit's result files (.xlsx, .tsv, .json).

    Raises:
        RacroError: the file is missing or empty, or a row cannot be read.
    """
    if not path.is_file():
        raise RacroError(f"prediction file not found: {path}; expected {KINDS}")
    rows = list(_table(path) if path.suffix in (".xlsx", ".tsv", ".json") else _rows(path))
    if not rows:
        raise RacroError(f"{path} holds no predictions; expected {KINDS}")
    return rows


def response_column(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The column of the responses where none is named: ``response``, or else VLMEvalKit's ``prediction``."""
    columns = {column for _, row in rows for column in row}
    return "prediction" if "prediction" in columns and "response" not in columns else "response"


def _table(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    drops = Drops()
    rows = read_table([path], drops, images=False)
    if drops.counts:
        # A prediction left out would be a question without an answer, which does not count: too easily overlooked.
        reasons = ", ".join(f"{reason} {count}" for reason, count in drops.counts.most_common())
        raise RacroError(
            f"{path}: {drops.counts.total()} rows cannot be read ({reasons}); the warnings above name some"
        )
    return ((row.where, dict(row.values)) for row in rows)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row, _ in json_lines(path, MAX_LINE_BYTES):
        where = f"{path.name}:{number}"
        if isinstance(row, RowError):
            raise RacroError(f"{where}: {row}; expected one JSON object a line")
        try:
            yield where, row_of_log(row)
        except RowError as error:
            raise RacroError(f"{where}: {error}") from error


def read_predictions(
    path: Path, rows: Sequence[tuple[str, dict[str, Any]]], field: str, asked: Benchmark | None = None
) -> Predictions:
    """Responses by question id.

    Args:
        path: the file, for messages.
        rows: what :func:`read_rows` found in it.
        field: the column of the responses.
        asked: the benchmark whose questions the rows carry. Their ids are then as it makes them (DynaMath's from seed
            and variant), and a row that it cannot use is left out here too.

    A row that repeats an earlier one, id and response, is left out and named.

    Raises:
        RacroError: a row has no id or no such field, or different responses have one id.
    """
    responses: dict[str, str] = {}
    drops, ids = Drops(), UniqueIds()
    for where, row in rows:
        if field not in row:
            raise RacroError(f"{where} has no column {field!r}; name the responses with --response-field{_found(row)}")
        key = _own_id(asked, where, path, row) if isinstance(asked, TableBenchmark) else _stated_id(where, row)
        if key is None:
            continue
        response = _response(row[field], where, field)
        with drops.taking(where):
            ids.add(key, where, response)
        responses.setdefault(key, response)
    ids.check()
    return Predictions(path, responses, frozenset(column for _, row in rows for column in row))


def _stated_id(where: str, row: Mapping[str, Any]) -> str:
    key = next((text for name in ID_COLUMNS if (text := plain_text(row.get(name)))), None)
    if key is None:
        raise RacroError(f"{where} has no id; expected one of the columns {', '.join(ID_COLUMNS)}{_found(row)}")
    return key


def _own_id(benchmark: TableBenchmark, where: str, path: Path, row: Mapping[str, Any]) -> str | None:
    try:
        return benchmark.question(Row(where, path, row)).id
    except RowError:
        return None  # the benchmark's reader counted it, and its count is printed


def _response(value: Any, where: str, field: str) -> str:
    if value is None:
        return ""  # no answer, which is never right
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    raise RacroError(f"{where}: column {field!r} holds a {type(value).__name__}; expected a text or a number")


def _found(row: Mapping[str, Any]) -> str:
    return f". Columns found: {', '.join(row)[:400]}"


def _some(names: Sequence[str], what: str) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'} ({shown})"


def match_questions(predictions: Predictions, questions: Sequence[Question]) -> list[Question]:
    """The questions that have a prediction, in the order of the predictions.

    Raises:
        RacroError: a prediction's id is no question's.
    """
    known = {question.id: question for question in questions}
    unknown = [key for key in predictions.responses if key not in known]
    if unknown:
        examples = ", ".join(repr(key) for key in list(known)[:_NAMED])
        raise RacroError(
            f"{predictions.path}: {_some(unknown, 'id')} of {len(predictions.responses)} not among the {len(known)} "
            f"questions, whose ids are like {examples or '(there are none)'}; is this the right benchmark, split and "
            "--questions?"
        )
    return [known[key] for key in predictions.responses]
