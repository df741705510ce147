"""Tables that compare captioners before and after several trainings: of the figure world, and with own answers."""

from __future__ import annotations

from experiment_parts.evaluations import FIGURES_BEFORE, TENTATIVE
from experiment_parts.layout import Results, before_and_after
from experiment_parts.reckoning import REASONERS
from experiment_parts.runs import AGAINST, JOINT, JOINT_FIGURES, LOOKING

READER_A, READER_B = "figure-reasoner", "figure-reasoner-b"
"""The reasoner that training asked, and one that it never met, by their names in an evaluation."""
FIGURE_HEAD = "|  | reasoner A (asked in training) | reasoner B (never met) | its own answer |"
FIGURE_COLUMNS = (READER_A, READER_B, "direct")


def against_table(results: Results) -> str:
    """CRO and other rewards in the figure world."""
    return before_and_after(results, FIGURE_HEAD, FIGURES_BEFORE, AGAINST, FIGURE_COLUMNS)


def joint_figures_table(results: Results) -> str:
    """Captions and own answers in one run, in the figure world."""
    return before_and_after(results, FIGURE_HEAD, FIGURES_BEFORE, JOINT_FIGURES, FIGURE_COLUMNS)


def joint_table(results: Results) -> str:
    """Own answers, captions and both together in the reckoning world, before and after every kind of training."""
    head = "|  | own answer | weak | middle | strong | weak + t. | middle + t. | strong + t. |"
    columns = ("direct", *REASONERS, *(f"{name}{TENTATIVE}" for name in REASONERS))
    return before_and_after(results, head, LOOKING, JOINT, columns)
