"""Tables of the runs with captions and own answers."""

from __future__ import annotations

from collections.abc import Sequence

from experiment_parts.evaluations import TENTATIVE
from experiment_parts.layout import Results, spread, table, table_row
from experiment_parts.reckoning import REASONERS
from experiment_parts.runs import JOINT, JOINT_FIGURES, LOOKING, Row

FIGURE_COLUMNS = ("figure-reasoner", "figure-reasoner-b", "direct")


def joint_table(results: Results) -> str:
    """Own answers, captions and both together in the reckoning world, before and after every kind of training."""
    columns = ("direct", *REASONERS, *(f"{name}{TENTATIVE}" for name in REASONERS))
    lines = [_before(results, "before any training", LOOKING, columns)]
    lines += [_after(results, row, columns) for row in JOINT]
    return table("|  | own answer | weak | middle | strong | weak + t. | middle + t. | strong + t. |", lines)


def joint_figures_table(results: Results) -> str:
    """The same in the figure world, without the last."""
    lines = [_before(results, "before any training", "before", FIGURE_COLUMNS)]
    lines += [_after(results, row, FIGURE_COLUMNS) for row in JOINT_FIGURES]
    return table("|  | reasoner A (asked in training) | reasoner B (never met) | its own answer |", lines)


def _before(results: Results, title: str, captioner: str, columns: Sequence[str]) -> str:
    return table_row(title, [f"{100 * results['evaluation'][captioner][key]:.1f}" for key in columns])


def _after(results: Results, row: Row, columns: Sequence[str]) -> str:
    """Mean and range over the seeds; a row of which nothing was run says so."""
    names = [f"{row.name}-{seed}" for seed in results["seeds"]]
    runs = [results["evaluation"][name] for name in names if name in results["evaluation"]]
    return table_row(row.title, [spread([run[key] for run in runs]) if runs else "not run" for key in columns])
