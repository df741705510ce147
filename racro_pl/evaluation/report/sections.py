"""What the templates of the page show: results, sorted as the sections need them. No HTML is made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from racro_pl.evaluation.report.formatting import interval, legend, notes, p_value, paired, percent
from racro_pl.evaluation.results import UNCATEGORISED, Cell, Results

COLORS = 8
"""Distinct colours of systems in the style sheet; further systems have the same colours with another shape."""
_NAME_LENGTH = 52
"""Longest name that fits above its line in a chart, in characters."""

Numbered = tuple[int, Cell]
"""A system's number, which gives its mark, and its cell of one benchmark."""


def context(results: Results) -> dict[str, Any]:
    """Names for the templates: values of these results, and the functions that format them."""

    def there(benchmark: str) -> list[Numbered]:
        cells = [(number, results.cell(benchmark, system)) for number, system in enumerate(results.systems)]
        return [(number, cell) for number, cell in cells if cell is not None]

    def answered(benchmark: str) -> list[Numbered]:
        return [(number, cell) for number, cell in there(benchmark) if cell.headline is not None]

    classes = [_classes(title, there(name)) for name, title in results.benchmarks.items()]
    return {
        "results": results,
        "averages": [results.average(system) for system in results.systems],
        "remarks": [remark for cell in results.cells for remark in notes(cell)],
        "pairs": list(dict.fromkeys((item.first, item.second) for item in results.comparisons)),
        "classes": [each for each in classes if each["breakdowns"] or each["metrics"]],
        "first_cell": lambda name: next(cell for cell in results.cells if cell.benchmark == name),
        "answered": answered,
        "colors": COLORS,
        "uncategorised": UNCATEGORISED,
        "place": lambda share: round(10 + 300 * share, 1),
        "short": lambda name: name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…",
        "address": lambda state: urlencode(state, errors="replace"),
        "plain": _plain,
        "percent": percent, "interval": interval, "notes": notes, "legend": legend,
        "paired": paired, "p_value": p_value,
    }  # fmt: skip


def _classes(title: str, cells: Sequence[Numbered]) -> dict[str, Any]:
    """One benchmark's further metrics, and the classes of each breakdown."""
    breakdowns: dict[str, set[str]] = {}
    for _, cell in cells:
        for breakdown, classes in cell.categories.items():
            breakdowns.setdefault(breakdown, set()).update(classes)
    return {
        "title": title,
        "cells": cells,
        "metrics": list(dict.fromkeys(name for _, cell in cells for name in cell.figures)),
        "breakdowns": {breakdown: sorted(classes) for breakdown, classes in breakdowns.items()},
    }


def _plain(value: Any) -> str:
    """A setting as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return "–" if value is None else str(value)
