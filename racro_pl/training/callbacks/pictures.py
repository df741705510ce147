"""The pictures of a run: a curve, and images with their captions before and after."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from rich.cells import cell_len, chop_cells

from racro_pl.files import private
from racro_pl.text.captioner_prompt import IMAGE_TAG
from racro_pl.text.printable import printable
from racro_pl.training.metrics.accuracy import Answered, Shown

RIGHT, WRONG = "#1a7f37", "#b42318"
_GREY = "#667085"
_IMAGE, _GAP, _LINE, _COLUMN = 1.4, 0.1, 0.185, 0.086
"""Of the caption sheet: its place for images, the space around it, a line of text, a bold character; in inches."""
_IMAGES = 4
"""Most images that a question shows."""
_COLUMNS = 120
"""Characters in a line."""
_WIDE_FONTS = ("CJK", "Source Han", "WenQuanYi", "Droid Sans Fallback", "Hiragino", "PingFang", "YaHei", "SimHei",
               "IPA", "TakaoGothic", "Nanum", "Malgun", "Arial Unicode")  # fmt: skip
"""In names of families with Chinese, Japanese or Korean characters."""


def draw_curve(path: Path, accuracy: Sequence[tuple[int, float]], reward: Sequence[tuple[int, float]]) -> None:
    """Accuracy of greedy captions and mean reward of sampled ones, over steps. From 0 to 1, or as far as they go."""
    figure = Figure(figsize=(7, 4), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.plot(
        *zip(*reward, strict=True), color="#9aa4b2", linewidth=1, marker="o", markersize=2,  # a lone step has no line
        label="reward of sampled captions (train)",
    )  # fmt: skip
    if accuracy:
        axes.plot(
            *zip(*accuracy, strict=True), color="#175cd3", marker="o", label="accuracy, greedy captions (held out)"
        )
    values = [value for _, value in (*reward, *accuracy) if math.isfinite(value)]
    low, high = min([0.0, *values]), max([1.0, *values])
    margin = 0.02 * (high - low)
    inside = low == 0 and high == 1
    label = "share of right answers" if inside else "mean reward, and share of right answers"
    axes.set(xlabel="step", ylabel=label, ylim=(low - margin * (low < 0), high + margin))
    axes.grid(alpha=0.25)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    _save(figure, path, None)


def draw_captions(
    path: Path, images: Sequence[Sequence[Image.Image]], answered: Sequence[Answered], before: Sequence[Shown]
) -> None:
    """One row per question: its images, question, options and gold, and the caption and verdict before and after.

    Texts are wrapped, and cut where they are longer than some lines. Characters that no installed font has are boxes,
    and a line at the bottom says so.
    """
    rows = [_lines(item, earlier) for item, earlier in zip(answered, before, strict=True)]
    missing = missing_characters("".join(text for lines in rows for text, _, _ in lines))
    heights = [max(_IMAGE, _LINE * len(lines)) + 2 * _GAP for lines in rows]
    total = sum(heights) + (_LINE + _GAP if missing else 0)
    longest = max((cell_len(text) for lines in rows for text, _, _ in lines), default=0)
    width = _IMAGE + 4 * _GAP + _COLUMN * max(60, longest)  # 60: the note below fits
    figure = Figure(figsize=(width, total), dpi=130)
    top = total
    for lines, height, pictures in zip(rows, heights, images, strict=True):
        for place, image in enumerate(pictures[:_IMAGES]):
            side = _IMAGE if len(pictures) == 1 else _IMAGE / 2
            left, down = _GAP + place % 2 * side, place // 2 * side
            box = (left / width, (top - _GAP - down - side) / total, (side - 0.03) / width, (side - 0.03) / total)
            axes = figure.add_axes(box)
            axes.imshow(image, interpolation="nearest")
            axes.axis("off")
        for number, (text, color, weight) in enumerate(lines):
            y = (top - _GAP - _LINE * number) / total
            figure.text(
                (_IMAGE + 3 * _GAP) / width, y, text, va="top", color=color, weight=weight, parse_math=False,
                family=_fonts(), fontsize=9,
            )  # fmt: skip
        top -= height
    if missing:
        note = f"\N{WHITE SQUARE}: {len(missing)} characters that no installed font has; Noto Sans CJK has most"
        figure.text(_GAP / width, (_GAP + _LINE) / total, note, va="top", color=_GREY, fontsize=8)
    _save(figure, path, private)


def _lines(item: Answered, before: Shown) -> list[tuple[str, str, str]]:
    """Text, colour and weight of each line of a row."""
    question = item.question
    asked = question.text.replace(IMAGE_TAG, "").strip()
    options = "".join(f"\n{chr(65 + place)}. {choice}" for place, choice in enumerate(question.choices))
    further = f" ({len(question.images)} images, {_IMAGES} shown)" if len(question.images) > _IMAGES else ""
    gold = wrap(f"gold: {printable(question.answer)}{further}", _COLUMNS, 1)
    found = [(line, "black", "bold") for line in [*wrap(printable(asked + options, lines=True), _COLUMNS, 8), *gold]]
    for name, shown in (("before", before), ("after", item.shown)):
        color = _GREY if shown.correct is None else RIGHT if shown.correct > 0.5 else WRONG
        mark = "no verdict" if shown.correct is None else "right" if shown.correct > 0.5 else "wrong"
        answer = "" if shown.found is None else f" ({printable(shown.found)})"
        lines = [*wrap(f"{name}: {printable(shown.caption, lines=True)}", _COLUMNS, 6),
                 *wrap(f"    \N{RIGHTWARDS ARROW} {mark}{answer}", _COLUMNS, 1)]  # fmt: skip
        found += [(line, color, "normal") for line in lines]
    return found


def wrap(text: str, columns: int, most: int) -> list[str]:
    """A text's lines, at most ``most``, each at most ``columns`` wide. A character of Chinese or Japanese counts two.

    >>> wrap("one two three", 8, 2)
    ['one two', 'three']
    >>> wrap("\u4e00\u4e8c\u4e09\u56db", 4, 1)
    ['\u4e00…']
    """
    lines: list[str] = []
    for paragraph in text.splitlines():
        rest = " ".join(paragraph.split()) if lines else paragraph.rstrip()
        while rest:
            cut = _fitting(rest, columns)
            space = rest.rfind(" ", 1, cut + 1)
            if cut < len(rest) and space > cut // 2:
                cut = space
            lines.append(rest[:cut].rstrip())
            rest = rest[cut:].lstrip()
    if len(lines) > most:
        last = lines[most - 1]
        lines = [*lines[: most - 1], last[: _fitting(last, columns - 1)] + "…"]
    return lines


def _fitting(text: str, columns: int) -> int:
    """How many of a text's characters fit, at least one."""
    return max(1, len(chop_cells(text[:columns], columns)[0]))


def missing_characters(text: str) -> set[str]:
    """Characters of a text that no font of the sheet has."""
    known: set[int] = set()
    for family in _fonts():
        if not family.startswith("Last Resort"):
            known |= font_manager.get_font(font_manager.findfont(family)).get_charmap().keys()
    return {character for character in text if ord(character) not in known and not character.isspace()}


@functools.cache
def _fonts() -> list[str]:
    """Installed families in the order in which a character is looked for."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    wide = [name for name in sorted(installed) if any(word in name for word in _WIDE_FONTS)]
    last = [name for name in installed if name.startswith("Last Resort")]
    return ["DejaVu Sans", *wide, *last]


def _save(figure: Figure, path: Path, opener: Callable[[str, int], int] | None) -> None:
    # The Agg canvas by name: pyplot would look for a display.
    FigureCanvasAgg(figure)
    with open(path, "wb", opener=opener) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a line of the sheet counts them
        figure.savefig(file, format="png")
