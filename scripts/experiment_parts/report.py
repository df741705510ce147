"""From figures to tables, pictures and pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from experiment_parts.joint_report import READER_B, against_table, joint_figures_table, joint_table
from experiment_parts.layout import Results, draw_curves, finish, mean, spread, table, table_row
from experiment_parts.reckoning_report import (
    controls_table,
    described_table,
    draw_readers,
    draw_sheet,
    general_table,
    narrow_table,
    reckoning_table,
)
from experiment_parts.runs import AGAINST, HABIT, PENALTY, SETTINGS, TABLES, Row

QUICKSTART = {"cro": "LoRA", "nf4": "QLoRA (NF4)", "shuffled": "LoRA, rewards shuffled"}
TYPES = ("color", "fill", "count", "shade")
PARTS = ("runs", "evaluation", "ceilings", "captions", "sheet", "described", "general", "costs")
"""Of the results, each by name."""
LATE = 4
"""So many of the last steps that were looked at stand for the end of a run."""


def tables(results: Results) -> dict[str, str]:
    """Markdown by name of its block: the chosen tables, and the quickstart's where all its rows were run."""
    makers = {
        "against": against_table, "penalty": _penalty, "settings": _settings, "reckoning": reckoning_table,
        "reckoning_controls": controls_table, "reckoning_narrow": narrow_table,
        "reckoning_described": described_table, "reckoning_general": general_table,
        "joint": joint_table, "joint_figures": joint_figures_table,
    }  # fmt: skip
    own = results.get("seeds_of", {})
    blocks = {name: makers[name](results | {"seeds": own.get(name, results["seeds"])}) for name in results["tables"]}
    if {"against", "settings"} <= set(results["tables"]):
        blocks["quickstart"] = _quickstart(results)
    return blocks


def _penalty(results: Results) -> str:
    keys = ("describes", "trained", "reader", "trusting")
    first = [results["captions"][f"{row.name}-{seed}"][0] for row in PENALTY for seed in results["seeds"]]
    lines = [
        table_row("sampled, first step", [spread([look[key] for look in first]) for key in keys]),
        *(
            table_row(f"sampled, last steps: {row.title}", [_late(results, row, key) for key in keys])
            for row in PENALTY
        ),
    ]
    start = [
        results["runs"][f"{row.name}-{seed}"]["before"]["accuracy"] for row in PENALTY for seed in results["seeds"]
    ]
    lines.append(_greedy(results, "start", [HABIT], start))
    for row in PENALTY:
        names = [f"{row.name}-{seed}" for seed in results["seeds"]]
        end = [results["runs"][name]["after"]["accuracy"] for name in names]
        lines.append(_greedy(results, row.title, names, end))
    head = "|  | captions that describe | reasoner of training | reader B | reader B, taking boxes as they stand |"
    return table(head, lines)


def _greedy(results: Results, title: str, captioners: Sequence[str], trained: Sequence[float]) -> str:
    read = spread([results["evaluation"][name][READER_B] for name in captioners])
    return table_row(f"greedy, held out: {title}", ["", spread(trained), read, ""])


def _late(results: Results, row: Row, key: str) -> str:
    looks = [results["captions"][f"{row.name}-{seed}"][-LATE:] for seed in results["seeds"]]
    return spread([mean(look[key] for look in run) for run in looks])


def _settings(results: Results) -> str:
    steps = (20, 40, 80)
    lines = []
    for row in SETTINGS:
        runs = [results["runs"][f"{row.name}-{seed}"] for seed in results["seeds"]]
        cells = [spread([dict(run["curve"])[step] for run in runs]) for step in steps]
        lines.append(table_row(row.title, [*cells, f"{mean(run['seconds'] for run in runs):.0f}"]))
    return table(f"|  | {' | '.join(f'after {step} steps' for step in steps)} | seconds |", lines)


def _quickstart(results: Results) -> str:
    keys = ["accuracy", *(f"accuracy/{kind}" for kind in TYPES), "asked_fact_stated", "true_sentences"]
    lines = []
    for name, title in QUICKSTART.items():
        runs = [results["runs"][f"{name}-{seed}"] for seed in results["seeds"]]
        befores, afters = ([[run[when][key] for run in runs] for key in keys] for when in ("before", "after"))
        # All seeds start from the same captioner.
        cells = [f"{100 * mean(before):.1f} → {spread(after)}" for before, after in zip(befores, afters, strict=True)]
        lines.append(table_row(title, cells))
    kinds = "colour | fill | count | shade"
    return table(f"| run | accuracy | {kinds} | asked fact stated | true sentences |", lines)


def merged(published: Results, new: Results) -> Results:
    """Published results with those of the tables that were made again; ``seeds_of`` has tables with other seeds.

    Where all tables are new, nothing of the old results is left: rows may have been taken out.
    """
    seeds = published["seeds"]
    made = published.get("seeds_of", {}) | dict.fromkeys(new["tables"], new["seeds"])
    others = {name: own for name, own in made.items() if own != seeds}
    every = [name for name in TABLES if name in (*published["tables"], *new["tables"])]
    kept = {} if set(every) == set(new["tables"]) else published
    parts = {name: kept.get(name, {}) | new[name] for name in PARTS}
    return {"seeds": seeds, **({"seeds_of": others} if others else {}), "tables": every, **parts}


def fill(page: Path, blocks: dict[str, str]) -> None:
    """Put tables between the ``<!-- name -->`` and ``<!-- /name -->`` of a page.

    Raises:
        ValueError: the page has no such pair.
    """
    text = page.read_text()
    for name, block in blocks.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(
                f"{page}: got no single pair of lines <!-- {name} --> and <!-- /{name} --> to write between"
            )
        head, rest = text.split(begin)
        text = f"{head}{begin}{block}\n{end}{rest.split(end)[1]}"
    page.write_text(text)


def draw_learning(results: Results, path: Path) -> None:
    """Accuracy of greedy captions on held-out questions over steps, through the reasoner of training."""
    figure = Figure(figsize=(7.5, 4), dpi=130, layout="constrained")
    axes = figure.subplots()
    for row, color in zip(AGAINST, ("#175cd3", "#b42318", "#7a5af8", "#b54708"), strict=True):
        curves = [
            [(step, share) for step, share in results["runs"][f"{row.name}-{seed}"]["curve"]]
            for seed in results["seeds"]
        ]
        draw_curves(axes, curves, color, row.title)
    axes.set(xlabel="step", ylabel="share of right answers", ylim=(-0.02, 1.02))
    finish(figure, [axes], path, legend_at=0.72)


def draw_penalty(results: Results, path: Path) -> None:
    """Share of real captions, and what two readings of reasoner B make of all, over steps."""
    figure = Figure(figsize=(11, 3.8), dpi=130, layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    titles = {
        "describes": "captions that describe",
        "trained": "right: reasoner of training",
        "reader": "right: reader B, never asked",
    }
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        for row, color in zip(PENALTY, ("#b42318", "#175cd3"), strict=True):
            runs = [results["captions"][f"{row.name}-{seed}"] for seed in results["seeds"]]
            draw_curves(axes, [[(look["step"], look[key]) for look in run] for run in runs], color, row.title)
        axes.set(xlabel="step", title=title, ylim=(-0.02, 1.02))
    panels[0].set_ylabel("share of sampled captions")
    finish(figure, panels, path, legend_at=0.52)


@dataclass(frozen=True)
class Picture:
    """A picture that is made from figures."""

    table: str
    """That it belongs to: drawn when that is made."""
    draw: Callable[[Results, Path], None]


PICTURES = {
    "against": Picture("against", draw_learning),
    "penalty": Picture("penalty", draw_penalty),
    "reckoning": Picture("reckoning", draw_readers),
    "reckoning_sheet": Picture("reckoning", draw_sheet),
}
"""By what follows ``experiments_`` in their files' names."""
