"""Tables and pictures of the reckoning world's experiments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiment_parts.described import READERS as DESCRIBED_READERS
from experiment_parts.evaluations import BEFORE, TENTATIVE
from experiment_parts.general import OTHER
from experiment_parts.layout import Results, before_and_after, draw_curves, finish, spread, table, table_row
from experiment_parts.reckoning import NARROW, REASONERS, STRONG
from experiment_parts.runs import DESCRIBED, DESCRIBING, GENERAL, RECKONING, RECKONING_CONTROLS, RECKONING_NARROW
from racro_pl.data.benchmarks import find_benchmark
from racro_pl.images import open_image
from racro_pl.training.callbacks.pictures import RIGHT, WRONG

COLORS = ("#b54708", "#7a5af8", "#175cd3")
"""Of the reasoners' curves, in their order."""


def reckoning_table(results: Results) -> str:
    """What every reasoner and the captioner itself get before and after a training with the weak reasoner."""
    found, ceilings = results["evaluation"], results["ceilings"]
    after = [found[f"{RECKONING[0].name}-{seed}"] for seed in results["seeds"]]
    lines = []
    for title, key in _columns().items():
        ceiling = f"{100 * ceilings[key]['accuracy']:.1f}" if key in ceilings else ""
        lines.append(
            table_row(title, [f"{100 * found[BEFORE][key]:.1f}", spread([run[key] for run in after]), ceiling])
        )
    return table("|  | before | after | its ceiling, with true captions |", lines)


def _columns() -> dict[str, str]:
    """Keys of an evaluation by what the table calls them."""
    places = ("asked in training", "never met", "never met")
    names = [short(name) for name in REASONERS]
    caption = {
        f"{name}, from the caption ({place})": key for name, place, key in zip(names, places, REASONERS, strict=True)
    }
    both = {
        f"{name}, from caption and tentative answer": key + TENTATIVE
        for name, key in zip(names, REASONERS, strict=True)
    }
    return caption | both | {"the captioner's own answer": "direct"}


def short(name: str) -> str:
    """
    >>> short("reckoning-weak")
    'weak'
    """
    return name.removeprefix("reckoning-")


def controls_table(results: Results) -> str:
    """The training against its controls."""
    head = "|  | weak (asked in training) | middle | strong | its own answer |"
    return before_and_after(results, head, BEFORE, RECKONING_CONTROLS, (*REASONERS, "direct"))


def narrow_table(results: Results) -> str:
    """What the narrow reasoner of training and the strong one get, by type of question."""
    runs = [results["runs"][f"{RECKONING_NARROW[0].name}-{seed}"] for seed in results["seeds"]]
    readers = {"narrow (asked in training)": (NARROW, ""), "strong (never met)": (STRONG, f"{STRONG}: ")}
    lines = []
    for title, (name, prefix) in readers.items():
        for part, kind in {"sums": "/sum", "all questions": ""}.items():
            key = f"{prefix}accuracy{kind}"
            ceiling = results["ceilings"][name][f"accuracy{kind}"]
            before, after = 100 * runs[0]["before"][key], spread([run["after"][key] for run in runs])
            lines.append(table_row(f"{title}: {part}", [f"{before:.1f}", after, f"{100 * ceiling:.1f}"]))
    return table("| from the caption | before | after | its ceiling, with true captions |", lines)


def described_table(results: Results) -> str:
    """Texts that describe and then answer, by what was paid; over the seeds with which all rows were run."""
    found = results["described"]
    seeds = [seed for seed in results["seeds"] if all(f"{row.name}-{seed}" in found for row in DESCRIBED)]
    columns = ("direct", *DESCRIBED_READERS, "asked_counts_stated", "true_sentences")
    lines = [table_row("before", [f"{100 * found[DESCRIBING][key]:.1f}" for key in columns])]
    for row in DESCRIBED:
        cells = [spread([found[f"{row.name}-{seed}"][key] for seed in seeds]) for key in columns]
        lines.append(table_row(row.title, cells))
    head = "|  | its own answer | weak, from the description | strong | all that is asked stated | true sentences |"
    return table(head, lines)


def general_table(results: Results) -> str:
    """Captions read for the question that they were written for and for another one, by what was paid."""
    found = results["general"]
    seeds = [seed for seed in results["seeds"] if all(f"{row.name}-{seed}" in found for row in GENERAL)]
    columns = [*DESCRIBED_READERS, *(f"{name}, {OTHER}" for name in DESCRIBED_READERS), "true_sentences"]
    lines = [table_row("before", [f"{100 * found[BEFORE][key]:.1f}" for key in columns])]
    for row in GENERAL:
        lines.append(
            table_row(row.title, [spread([found[f"{row.name}-{seed}"][key] for seed in seeds]) for key in columns])
        )
    heads = [short(name) for name in DESCRIBED_READERS]
    others = [f"{name}, {OTHER}" for name in heads]
    return table(f"|  | {' | '.join([*heads, *others])} | true sentences |", lines)


def draw_readers(results: Results, path: Path) -> None:
    """Each reasoner's accuracy over the steps of a training that asks the weak one; its ceiling as a dashed line."""
    figure = Figure(figsize=(7.5, 4), dpi=130, layout="constrained")
    axes = figure.subplots()
    runs = [results["runs"][f"{RECKONING[0].name}-{seed}"] for seed in results["seeds"]]
    for name, color in zip(REASONERS, COLORS, strict=True):
        draw_curves(axes, [run["readers"][name] for run in runs], color, short(name))
        axes.axhline(results["ceilings"][name]["accuracy"], color=color, linestyle="--", linewidth=1)
    axes.add_line(Line2D([], [], color="grey", linestyle="--", linewidth=1, label="with true captions"))
    axes.set(xlabel="step", ylabel="share of right answers", ylim=(-0.02, 1.02))
    finish(figure, [axes], path, legend_at=0.2)


def draw_sheet(results: Results, path: Path) -> None:
    """Pictures and questions with captions before and after training, and what the reasoners make of them."""
    questions = {question.id: question for question in find_benchmark("reckoning").read().questions}
    rows = results["sheet"]
    figure = Figure(figsize=(6.6, 1.2 * len(rows)), dpi=100)
    for place, (key, told) in enumerate(rows.items()):
        top = 1 - place / len(rows)
        axes = figure.add_axes((0.01, top - 0.95 / len(rows), 0.16, 0.9 / len(rows)))
        axes.imshow(open_image(questions[key].images[0]), interpolation="nearest")
        axes.axis("off")
        title = f"{questions[key].text}  ({questions[key].answer})"
        figure.text(0.2, top - 0.08 / len(rows), title, va="top", weight="bold", fontsize=9)
        for line, when in enumerate(("before", "after")):
            at = top - (0.31 + 0.33 * line) / len(rows)
            figure.text(0.2, at, f"{when}: {shorten(told[when]['caption'], 90)}", va="top", fontsize=9)
            _answers(figure, told[when]["answers"], questions[key].answer, at - 0.155 / len(rows))
    FigureCanvasAgg(figure)
    figure.savefig(path)


def _answers(figure: Figure, answers: Mapping[str, Any], gold: str, at: float) -> None:
    for place, name in enumerate(REASONERS):
        color = RIGHT if answers[name] == gold else WRONG
        text = f"{short(name)}: {answers[name] or 'no answer'}"
        figure.text(0.25 + 0.2 * place, at, text, va="top", fontsize=9, color=color)
