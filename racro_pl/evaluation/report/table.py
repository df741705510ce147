"""The results in the terminal: headline table and comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from racro_pl.evaluation.paper import PaperRow
from racro_pl.evaluation.report.formatting import (
    column_title,
    interval,
    legend,
    notes,
    p_value,
    pair_title,
    paired,
    percent,
)
from racro_pl.evaluation.results import Cell, Results

_LABEL_WIDTH = 36
_NARROW_LABEL_WIDTH = 26
"""Where the console would otherwise hold less than two benchmarks beside each other."""
_COLUMN_WIDTH = 14
"""Of one benchmark: ``[58.9, 67.4]`` or the title, and the space around it."""


class ResultsView:
    """All tables of an evaluation, fitted to the console: what does not fit beside each other comes below."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        names = list(self.results.benchmarks)
        narrow = options.max_width < _LABEL_WIDTH + 2 * _COLUMN_WIDTH
        label_width = _NARROW_LABEL_WIDTH if narrow else _LABEL_WIDTH
        fitting = max(1, (options.max_width - label_width) // _COLUMN_WIDTH)
        shown: list[str] = []
        for start in range(0, len(names), fitting):
            last = start + fitting >= len(names)
            table, noted = _results_table(self.results, names[start : start + fitting], last, label_width)
            shown += noted
            yield table
        if shown:
            yield Text(legend(shown) + "\n", style="dim italic")
        yield from comparison_tables(self.results)


def _results_table(
    results: Results, columns: Sequence[str], average: bool, label_width: int
) -> tuple[Table, list[str]]:
    """Headlines in percent with their 95 % interval, and the paper's rows below where a benchmark is the paper's.

    Args:
        results: what to show.
        columns: names of the benchmarks.
        average: whether a system's AVG gets a column; without any system that has all seven it has none anyway.
        label_width: of the systems' names, in characters.

    Returns:
        The table, and the notes in it, for the legend.
    """
    averages = {system: results.average(system) for system in results.systems} if average else {}
    show_average = any(averages.values())
    title = Text(f"{results.name}: headline in % [95 % interval]")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("system", max_width=label_width, overflow="fold")
    for name in columns:
        cells = [cell for cell in results.cells if cell.benchmark == name]
        table.add_column(Text(column_title(cells[0]).replace(" (", "\n(")), justify="right")
    if show_average:
        table.add_column("AVG", justify="right")
    shown: list[str] = []
    for system in results.systems:
        row = [_cell(results.cell(name, system), shown) for name in columns]
        if show_average:
            mean = averages[system]
            row.append(Text("–" if mean is None else percent(mean.value) + ("" if mean.complete else " †")))
        table.add_row(Text(system.label), *row)
    _add_paper(table, results.paper, columns, show_average)
    return table, shown


def _cell(cell: Cell | None, shown: list[str]) -> Text:
    """The cell's lines; the notes among them are added to ``shown``, for the legend."""
    if cell is None:
        return Text("–", style="dim")
    remarks = notes(cell)
    shown += remarks
    if cell.headline is None or cell.low is None or cell.high is None:
        return Text("\n".join(["–", *remarks]), style="dim")
    lines = "\n".join([interval(cell.low, cell.high), *remarks])
    return Text.assemble((percent(cell.headline), "bold"), ("\n" + lines, "dim"))


def _add_paper(table: Table, rows: Sequence[PaperRow], columns: Sequence[str], show_average: bool) -> None:
    rows = [row for row in rows if any(name in row.scores for name in columns)]
    if not rows:
        return
    table.add_section()
    table.add_row("as published in the paper, table 1", style="dim italic")
    for row in rows:
        scores = [percent(row.scores[name]) if name in row.scores else "" for name in columns]
        table.add_row(Text(row.label), *scores, *([percent(row.average)] if show_average else []), style="dim")


def comparison_tables(results: Results) -> Iterator[Table]:
    """Differences of headlines on what both systems answered, one table for each pair: legible at 60 columns."""
    pairs = dict.fromkeys((item.first, item.second) for item in results.comparisons)
    for first, second in pairs:
        table = Table(
            title=Text(pair_title(first, second)),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        table.add_column("benchmark", no_wrap=True)
        for header in ("difference [95 %]", "gained", "lost", "exact p"):
            table.add_column(header, justify="right", no_wrap=True)
        for item in results.comparisons:
            if (item.first, item.second) == (first, second):
                counts = f"{item.test.gained:,}", f"{item.test.lost:,}"
                exact = p_value(item.test.p_value).removeprefix("p ").removeprefix("= ")
                table.add_row(Text(item.title), Text(paired(item)), *counts, exact)
        yield table
