"""The pictures of a run: a curve, and images with their captions before and after."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from racro_pl.files import private
from racro_pl.text.printable import printable
from racro_pl.training.accuracy import Answered

RIGHT, WRONG = "#1a7f37", "#b42318"


def draw_curve(path: Path, accuracy: Sequence[tuple[int, float]], reward: Sequence[tuple[int, float]]) -> None:
    """Accuracy of greedy captions and mean reward of sampled ones, over steps."""
    figure = Figure(figsize=(7, 4), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*reward, strict=True), color="#9aa4b2", linewidth=1, label="reward of sampled captions (train)")
    if accuracy:
        axes.plot(
            *zip(*accuracy, strict=True), color="#175cd3", marker="o", label="accuracy, greedy captions (held out)"
        )
    axes.set(xlabel="step", ylabel="share of right answers", ylim=(0, 1.02))
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)
    _save(figure, path, None)


def draw_captions(
    path: Path, images: Sequence[Image.Image], answered: Sequence[Answered], captions_before: Sequence[str]
) -> None:
    """One row per question: the image, the question, and the caption before and after training."""
    figure = Figure(figsize=(10, 1.35 * len(answered)), dpi=130, layout="constrained")
    rows = figure.subplots(len(answered), 2, width_ratios=[1, 7], squeeze=False)
    for (picture, text), image, item, before in zip(rows, images, answered, captions_before, strict=True):
        picture.imshow(image, interpolation="nearest")
        picture.axis("off")
        text.axis("off")
        question = printable(item.question.text.replace("<image>", "").strip())[:110]
        text.text(0, 0.95, f"{question}   [{printable(item.question.answer)}]",
                  va="top", weight="bold", parse_math=False)  # fmt: skip
        text.text(
            0,
            0.62,
            textwrap.fill(f"before: {printable(before)}", 110, max_lines=2),
            va="top",
            color="#667085",
            parse_math=False,
        )
        right = item.correct is not None and item.correct > 0.5
        found = item.rewards.extracted[0][0] if item.rewards.extracted[0] else None
        after = printable(f"after:  {item.caption}   → {found}")
        text.text(0, 0.30, textwrap.fill(after, 110, max_lines=2),
                  va="top", color=RIGHT if right else WRONG, parse_math=False)  # fmt: skip
    _save(figure, path, private)


def _save(figure: Figure, path: Path, opener: Callable[[str, int], int] | None) -> None:
    # The Agg canvas by name: pyplot would look for a display.
    FigureCanvasAgg(figure)
    with open(path, "wb", opener=opener) as file:
        figure.savefig(file, format="png")
