"""The fixed parts of the page, as HTML: scores, chart, comparisons, categories. Every text goes through ``_text``.

Nothing here has a ``style`` attribute: the page's content policy forbids them, so that no text can smuggle one in.
Lengths are attributes of SVG elements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import urlencode

from racro_pl.evaluation.paper import PaperRow
from racro_pl.evaluation.report.formatting import interval, legend, notes, p_value, paired, percent
from racro_pl.evaluation.results import UNCATEGORISED, Cell, Comparison, Results, System
from racro_pl.text.printable import printable

COLORS = 8
"""Distinct colours of systems in the style sheet; further systems have the same colours with another shape."""
_SHAPES = (
    '<circle cx="{x}" cy="{y}" r="5"/>',
    '<rect x="{left}" y="{top}" width="9" height="9"/>',
    '<path d="M{x} {high}l6 6-6 6-6-6z"/>',
    '<path d="M{x} {high}l6 11h-12z"/>',
)
"""Around (x, y): a dot, a square, a diamond, a triangle. With the colours they tell 32 systems apart."""
_NAME_LENGTH = 52
"""Longest name that fits above its line in a chart, in characters."""


def _mark(number: int, x: float, y: float) -> str:
    """The mark of a system, as SVG."""
    shape = _SHAPES[number // COLORS % len(_SHAPES)].format(x=x, y=y, left=x - 4.5, top=y - 4.5, high=y - 6)
    return f'<g class="mark-of s{number % COLORS}">{shape}</g>'


def _text(value: object) -> str:
    return escape(printable(str(value), lines=True), quote=True)


def _system(system: System, number: int) -> str:
    return f'<svg class=dot viewBox="0 0 14 14" aria-hidden="true">{_mark(number, 7, 7)}</svg>{_text(system.label)}'


def _link(text: str, title: str, **state: object) -> str:
    """A link into the gallery: its state is the part of the address after ``#``."""
    return f'<a href="#{_text(urlencode(state, errors="replace"))}" title="{_text(title)}">{text}</a>'


def settings_list(settings: Mapping[str, Any]) -> str:
    """What was run."""
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(_plain(value))}</dd>" for name, value in settings.items())
    return f"<dl>{rows}</dl>" if rows else "<p>No settings were recorded.</p>"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    return "–" if value is None else str(value)


def score_table(results: Results) -> str:
    """Headlines with intervals, AVG where a system has all seven, and the paper's rows."""
    names = list(results.benchmarks)
    averages = {system: results.average(system) for system in results.systems}
    with_average = any(averages.values())
    shown: list[str] = []
    head = "".join(_column_head(next(cell for cell in results.cells if cell.benchmark == name)) for name in names)
    body = ""
    for number, system in enumerate(results.systems):
        cells = "".join(_score_cell(results.cell(name, system), number, shown) for name in names)
        if with_average:
            mean = averages[system]
            text = "–" if mean is None else f"<b>{percent(mean.value)}</b>{'' if mean.complete else ' †'}"
            cells += f"<td>{text}</td>"
        body += f'<tr><th scope="row">{_system(system, number)}</th>{cells}</tr>'
    average_head = '<th scope="col">AVG</th>' if with_average else ""
    paper = _paper_rows(results.paper, names, with_average)
    meaning = f"<p class=note>{_text(legend(shown))}</p>" if shown else ""
    return (
        f'<div class=wide tabindex=0><table class=scores><thead><tr><th scope="col">System</th>{head}{average_head}'
        f"</tr></thead><tbody>{body}</tbody>{paper}</table></div>{meaning}"
    )


def _column_head(cell: Cell) -> str:
    kind = "" if cell.headline_name == "accuracy" else f"<small>{_text(cell.headline_name)}</small>"
    return f'<th scope="col">{_text(cell.title)}{kind}</th>'


def _score_cell(cell: Cell | None, number: int, shown: list[str]) -> str:
    if cell is None:
        return "<td>–</td>"
    remarks = notes(cell)
    shown += remarks
    small = "".join(f"<small>{_text(remark)}</small>" for remark in remarks)
    if cell.headline is None or cell.low is None or cell.high is None:
        return f"<td>–{small}</td>"
    score = _link(
        percent(cell.headline), "see its wrong answers", benchmark=cell.benchmark, system=number, filter="wrong"
    )
    return f"<td><b>{score}</b><small>{interval(cell.low, cell.high)}</small>{small}</td>"


def _paper_rows(rows: Sequence[PaperRow], names: Sequence[str], with_average: bool) -> str:
    if not rows:
        return ""
    columns = len(names) + 1 + with_average
    body = ""
    for row in rows:
        cells = "".join(f"<td>{percent(row.scores[n]) if n in row.scores else ''}</td>" for n in names)
        average = f"<td>{percent(row.average)}</td>" if with_average else ""
        body += f'<tr><th scope="row">{_text(row.label)}</th>{cells}{average}</tr>'
    title = f'<tr><th colspan="{columns}" scope="rowgroup">As published in the paper, table 1</th></tr>'
    return f"<tbody class=paper>{title}{body}</tbody>"


def chart(results: Results) -> str:
    """Headlines and intervals as dots and whiskers, one panel for each benchmark."""
    panels = ""
    for name, title in results.benchmarks.items():
        cells = [(number, results.cell(name, system)) for number, system in enumerate(results.systems)]
        there = [(number, cell) for number, cell in cells if cell is not None and cell.headline is not None]
        if there:
            panels += f"<figure><figcaption>{_text(title)}</figcaption>{_panel(title, there)}</figure>"
    key = "".join(f"<li>{_system(system, number)}</li>" for number, system in enumerate(results.systems))
    return f"<ul class=key>{key}</ul><div class=panels>{panels}</div>"


def _panel(title: str, cells: Sequence[tuple[int, Cell]]) -> str:
    """0 to 100 % is x = 10 to 310; one row of 34 a system, its name above; values on the right, the axis below."""

    def place(share: float) -> float:
        return round(10 + 300 * share, 1)

    bottom = 4 + 34 * len(cells)
    marks = ""
    for tick in (0, 25, 50, 75, 100):
        x = place(tick / 100)
        marks += f'<line class=grid x1="{x}" x2="{x}" y1="4" y2="{bottom}"/>'
        marks += f'<text class=tick x="{x}" y="{bottom + 15}">{tick}</text>'
    for row, (number, cell) in enumerate(cells):
        y = 4 + 34 * row + 23
        name = cell.system.label
        name = name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"
        low, high, value = cell.low or 0.0, cell.high or 0.0, cell.headline or 0.0
        marks += (
            f'<text class=system x="10" y="{y - 10}">{_text(name)}</text>'
            f'<line class="whisker s{number % COLORS}" x1="{place(low)}" x2="{place(high)}" y1="{y}" y2="{y}"/>'
            f"{_mark(number, place(value), y)}"
            f'<text class=value x="354" y="{y + 4}">{percent(value)}</text>'
        )
    label = _text(f"{title}: " + "; ".join(f"{c.system.label} {percent(c.headline or 0.0)} %" for _, c in cells))
    return f'<svg viewBox="0 0 356 {bottom + 20}" role="img" aria-label="{label}">{marks}</svg>'


def comparisons(results: Results) -> str:
    """Paired comparisons, pair by pair of systems; the counts lead to their questions."""
    if not results.comparisons:
        return "<p class=note>One system: nothing to compare.</p>"
    numbers = {system: number for number, system in enumerate(results.systems)}
    heads = ("Difference [95 %]", "Gained", "Lost", "Exact test", "On")
    head = '<th scope="col" class=name>Benchmark</th>' + "".join(f'<th scope="col">{text}</th>' for text in heads)
    body = ""
    for first, second in dict.fromkeys((item.first, item.second) for item in results.comparisons):
        pair = f"{_system(second, numbers[second])}, against {_system(first, numbers[first])}"
        body += f'<tr><th scope="rowgroup" colspan=6 class=name>{pair}</th></tr>'
        for item in results.comparisons:
            if (item.first, item.second) == (first, second):
                body += (
                    f'<tr><th scope="row">{_text(item.title)}</th><td>{paired(item)}</td>'
                    f"{_counts(item, results.systems)}<td>{p_value(item.test.p_value)}</td>"
                    f"<td>{item.groups:,} {_text(item.unit)}</td></tr>"
                )
    return (
        f"<div class=wide tabindex=0><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        "<p class=note>First every further captioner against the first, with the same reasoner; then the first "
        "captioner's other systems against its first. Difference of headlines in points. All figures are in the unit "
        "of the headline (the last column): its interval resamples these units, gained and lost count those that score "
        "more and less, and the exact test says how often equally good systems would differ at least so much "
        "(a randomisation test; McNemar's where units are right or wrong), not corrected for the number of "
        "comparisons.</p>"
    )


def _counts(item: Comparison, systems: Sequence[System]) -> str:
    cells = ""
    for kind, count in (("gained", item.test.gained), ("lost", item.test.lost)):
        text = f"{count:,}"
        # The gallery's filters compare questions with the first system.
        if count and item.first == systems[0] and item.unit == "questions":
            state = {"benchmark": item.benchmark, "system": systems.index(item.second), "filter": kind}
            text = _link(text, f"see what was {kind}", **state)
        cells += f"<td>{text}</td>"
    return cells


def categories(results: Results) -> str:
    """Accuracy by class: one table of bars for each benchmark and breakdown."""
    parts = ""
    for name, title in results.benchmarks.items():
        cells = [(number, results.cell(name, system)) for number, system in enumerate(results.systems)]
        there = [(number, cell) for number, cell in cells if cell is not None]
        tables = "".join(
            _bars(breakdown, there) for breakdown in dict.fromkeys(key for _, cell in there for key in cell.categories)
        )
        further = _further_metrics(there)
        if tables or further:
            first = " open" if not parts else ""
            parts += f"<details class=benchmark{first}><summary>{_text(title)}</summary>{further}{tables}</details>"
    return parts or "<p class=note>No categories are known for these questions.</p>"


def _header(first: str, cells: Sequence[tuple[int, Cell]]) -> str:
    systems = "".join(f'<th scope="col">{_system(cell.system, number)}</th>' for number, cell in cells)
    return f'<thead><tr><th scope="col">{_text(first)}</th>{systems}</tr></thead>'


def _bars(breakdown: str, cells: Sequence[tuple[int, Cell]]) -> str:
    rows = ""
    for name in sorted({name for _, cell in cells for name in cell.categories.get(breakdown, {})}):
        row = ""
        for number, cell in cells:
            accuracy, n = cell.categories.get(breakdown, {}).get(name, (0.0, 0))
            # The gallery finds questions by a class that they have.
            state = {"benchmark": cell.benchmark, "category": f"{breakdown}: {name}", "system": number}
            state = {} if name == UNCATEGORISED else state
            row += f"<td>{_bar(accuracy, n, number, state)}</td>" if n else "<td>–</td>"
        rows += f'<tr><th scope="row">{_text(name)}</th>{row}</tr>'
    return (
        f"<div class=wide tabindex=0><table class=bars>{_header(breakdown, cells)}<tbody>{rows}</tbody></table></div>"
    )


def _bar(accuracy: float, n: int, number: int, state: Mapping[str, object]) -> str:
    width = round(120 * accuracy, 1)
    value = _link(percent(accuracy), "see these questions", **state) if state else percent(accuracy)
    return (
        f'<svg class=bar viewBox="0 0 120 12" aria-hidden="true"><rect class=track width="120" height="12" rx="2"/>'
        f'<rect class="s{number % COLORS}" width="{width}" height="12" rx="2"/></svg> {value} <small>n={n:,}</small>'
    )


def _further_metrics(cells: Sequence[tuple[int, Cell]]) -> str:
    names = list(dict.fromkeys(name for _, cell in cells for name in cell.figures))
    if not names:
        return ""
    rows = ""
    for name in names:
        row = "".join(f"<td>{percent(cell.figures[name]) if name in cell.figures else '–'}</td>" for _, cell in cells)
        rows += f'<tr><th scope="row">{_text(name)}</th>{row}</tr>'
    return (
        f"<div class=wide tabindex=0><table class=metrics>{_header('further metrics in %', cells)}"
        f"<tbody>{rows}</tbody></table></div>"
    )
