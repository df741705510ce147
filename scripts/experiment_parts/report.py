"""From figures to tables, pictures and pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiment_parts.collect import mean
from experiment_parts.reckoning import BEFORE, REASONERS, TENTATIVE
from experiment_parts.runs import AGAINST, HABIT, PENALTY, RECKONING, RECKONING_CONTROLS, SETTINGS, TABLES, Row

Results = dict[str, Any]
READER_A, READER_B = "figure-reasoner", "figure-reasoner-b"
"""The reasoner that training asked, and one that it never met, by their names in an evaluation."""
QUICKSTART = {"cro": "LoRA", "nf4": "QLoRA (NF4)", "shuffled": "LoRA, rewards shuffled"}
TYPES = ("color", "fill", "count", "shade")
LATE = 4
"""So many of the last steps that were looked at stand for the end of a run."""


def tables(results: Results) -> dict[str, str]:
    """Markdown by name of its block: the chosen tables, and the quickstart's where all its rows were run."""
    makers = {
        "against": _against, "penalty": _penalty, "settings": _settings, "reckoning": _reckoning,
        "reckoning_controls": _reckoning_controls,
    }  # fmt: skip
    blocks = {name: makers[name](results) for name in results["tables"]}
    if {"against", "settings"} <= set(results["tables"]):
        blocks["quickstart"] = _quickstart(results)
    return blocks


def _against(results: Results) -> str:
    found = results["evaluation"]
    columns = (READER_A, READER_B, "direct")
    lines = [_row("before any training", [f"{100 * found['before'][key]:.1f}" for key in columns])]
    for row in AGAINST:
        cells = [spread([found[f"{row.name}-{seed}"][key] for seed in results["seeds"]]) for key in columns]
        lines.append(_row(row.title, cells))
    return _table("|  | reasoner A (asked in training) | reasoner B (never met) | its own answer |", lines)


def _penalty(results: Results) -> str:
    keys = ("describes", "trained", "reader", "trusting")
    first = [results["captions"][f"{row.name}-{seed}"][0] for row in PENALTY for seed in results["seeds"]]
    lines = [
        _row("sampled, first step", [spread([look[key] for look in first]) for key in keys]),
        *(_row(f"sampled, last steps: {row.title}", [_late(results, row, key) for key in keys]) for row in PENALTY),
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
    return _table(head, lines)


def _greedy(results: Results, title: str, captioners: Sequence[str], trained: Sequence[float]) -> str:
    read = spread([results["evaluation"][name][READER_B] for name in captioners])
    return _row(f"greedy, held out: {title}", ["", spread(trained), read, ""])


def _late(results: Results, row: Row, key: str) -> str:
    looks = [results["captions"][f"{row.name}-{seed}"][-LATE:] for seed in results["seeds"]]
    return spread([mean(look[key] for look in run) for run in looks])


def _settings(results: Results) -> str:
    steps = (20, 40, 80)
    lines = []
    for row in SETTINGS:
        runs = [results["runs"][f"{row.name}-{seed}"] for seed in results["seeds"]]
        cells = [spread([dict(run["curve"])[step] for run in runs]) for step in steps]
        lines.append(_row(row.title, [*cells, f"{mean(run['seconds'] for run in runs):.0f}"]))
    return _table(f"|  | {' | '.join(f'after {step} steps' for step in steps)} | seconds |", lines)


def _reckoning(results: Results) -> str:
    found, ceilings = results["evaluation"], results["ceilings"]
    after = [found[f"{RECKONING[0].name}-{seed}"] for seed in results["seeds"]]
    lines = []
    for title, key in _reckoning_columns().items():
        ceiling = f"{100 * ceilings[key]['accuracy']:.1f}" if key in ceilings else ""
        lines.append(_row(title, [f"{100 * found[BEFORE][key]:.1f}", spread([run[key] for run in after]), ceiling]))
    return _table("|  | before | after | its ceiling, with true captions |", lines)


def _reckoning_columns() -> dict[str, str]:
    """Keys of an evaluation by what the table calls them."""
    places = ("asked in training", "never met", "never met")
    names = [name.removeprefix("reckoning-") for name in REASONERS]
    caption = {
        f"{name}, from the caption ({place})": key for name, place, key in zip(names, places, REASONERS, strict=True)
    }
    both = {
        f"{name}, from caption and tentative answer": key + TENTATIVE
        for name, key in zip(names, REASONERS, strict=True)
    }
    return caption | both | {"the captioner's own answer": "direct"}


def _reckoning_controls(results: Results) -> str:
    found = results["evaluation"]
    columns = (*REASONERS, "direct")
    lines = [_row("before any training", [f"{100 * found[BEFORE][key]:.1f}" for key in columns])]
    for row in RECKONING_CONTROLS:
        cells = [spread([found[f"{row.name}-{seed}"][key] for seed in results["seeds"]]) for key in columns]
        lines.append(_row(row.title, cells))
    return _table("|  | weak (asked in training) | middle | strong | its own answer |", lines)


def _quickstart(results: Results) -> str:
    keys = ["accuracy", *(f"accuracy/{kind}" for kind in TYPES), "asked_fact_stated", "true_sentences"]
    lines = []
    for name, title in QUICKSTART.items():
        for seed in results["seeds"]:
            before, after = (results["runs"][f"{name}-{seed}"][when] for when in ("before", "after"))
            cells = [f"{100 * before[key]:.1f} → {100 * after[key]:.1f}" for key in keys]
            lines.append(_row(title, [str(seed), *cells]))
    kinds = "colour | fill | count | shade"
    return _table(f"| run | seed | accuracy | {kinds} | asked fact stated | true sentences |", lines)


def merged(published: Results, new: Results) -> Results:
    """Published results with those of the tables that were made again.

    Raises:
        ValueError: they come from other seeds.
    """
    if published["seeds"] != new["seeds"]:
        raise ValueError(f"got seeds {new['seeds']}; the published tables have {published['seeds']}: use those")
    every = [name for name in TABLES if name in (*published["tables"], *new["tables"])]
    parts = {name: published.get(name, {}) | new[name] for name in ("runs", "evaluation", "ceilings", "captions")}
    return {"seeds": new["seeds"], "tables": every, **parts}


def _row(title: str, cells: Sequence[str]) -> str:
    return f"| {title} | {' | '.join(cells)} |"


def _table(head: str, lines: Sequence[str]) -> str:
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *lines])


def spread(shares: Sequence[float]) -> str:
    """Mean and range of shares, in percent.

    >>> spread([0.5, 0.25, 0.75])
    '50.0 (25.0–75.0)'
    """
    percent = [100 * share for share in shares]
    found = f"{mean(percent):.1f}"
    return found if len(percent) == 1 else f"{found} ({min(percent):.1f}–{max(percent):.1f})"


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
        _lines(axes, curves, color, row.title)
    axes.set(xlabel="step", ylabel="share of right answers", ylim=(-0.02, 1.02))
    _finish(figure, [axes], path, legend_at=0.72)


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
            _lines(axes, [[(look["step"], look[key]) for look in run] for run in runs], color, row.title)
        axes.set(xlabel="step", title=title, ylim=(-0.02, 1.02))
    panels[0].set_ylabel("share of sampled captions")
    _finish(figure, panels, path, legend_at=0.52)


def _lines(axes: Axes, curves: Sequence[Sequence[tuple[int, float]]], color: str, label: str) -> None:
    """Every seed thin, their mean thick."""
    for curve in curves:
        axes.plot(*zip(*curve, strict=True), color=color, linewidth=0.7, alpha=0.5)
    shared = sorted(set.intersection(*({step for step, _ in curve} for curve in curves)))
    average = [mean(dict(curve)[step] for curve in curves) for step in shared]
    axes.plot(shared, average, color=color, linewidth=2, label=label)


def _finish(figure: Figure, panels: Sequence[Axes], path: Path, legend_at: float) -> None:
    for axes in panels:
        axes.grid(alpha=0.25)
    panels[0].legend(frameon=False, fontsize=8, loc="center right", bbox_to_anchor=(1.0, legend_at))
    FigureCanvasAgg(figure)  # by name: pyplot would look for a display
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


PICTURES: dict[str, Callable[[Results, Path], None]] = {"against": draw_learning, "penalty": draw_penalty}
"""By the table that they belong to."""
