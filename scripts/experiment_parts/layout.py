"""What tables and pictures are put together from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiment_parts.runs import Row

Results = dict[str, Any]


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean of at least one value."""
    listed = list(values)
    return sum(listed) / len(listed)


def table_row(title: str, cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {title} | {' | '.join(cells)} |"


def table(head: str, lines: Sequence[str]) -> str:
    """A table with its head."""
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *lines])


def spread(shares: Sequence[float]) -> str:
    """Mean and range of shares, in percent.

    >>> spread([0.5, 0.25, 0.75])
    '50.0 (25.0–75.0)'
    """
    percent = [100 * share for share in shares]
    found = f"{mean(percent):.1f}"
    return found if len(percent) == 1 else f"{found} ({min(percent):.1f}–{max(percent):.1f})"


def before_and_after(results: Results, head: str, before: str, rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Accuracies before any training, and after each row's: mean and range over the seeds that were run.

    Args:
        head: the table's, with an empty first cell.
        before: name of the untrained captioner in the evaluation.
        columns: keys of an evaluation.
    """
    found = results["evaluation"]
    lines = [table_row("before any training", [f"{100 * found[before][key]:.1f}" for key in columns])]
    for row in rows:
        names = [f"{row.name}-{seed}" for seed in results["seeds"]]
        runs = [found[name] for name in names if name in found]
        cells = [spread([run[key] for run in runs]) if runs else "not run" for key in columns]
        lines.append(table_row(row.title, cells))
    return table(head, lines)


def draw_curves(axes: Axes, curves: Sequence[Sequence[tuple[int, float]]], color: str, label: str) -> None:
    """Every seed thin, their mean thick."""
    for curve in curves:
        axes.plot(*zip(*curve, strict=True), color=color, linewidth=0.7, alpha=0.5)
    shared = sorted(set.intersection(*({step for step, _ in curve} for curve in curves)))
    average = [mean(dict(curve)[step] for curve in curves) for step in shared]
    axes.plot(shared, average, color=color, linewidth=2, label=label)


def finish(figure: Figure, panels: Sequence[Axes], path: Path, legend_at: float) -> None:
    """Grid, a legend in the first panel (at this height, 0 to 1), and the file."""
    for axes in panels:
        axes.grid(alpha=0.25)
    panels[0].legend(frameon=False, fontsize=8, loc="center right", bbox_to_anchor=(1.0, legend_at))
    FigureCanvasAgg(figure)  # by name: pyplot would look for a display
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
