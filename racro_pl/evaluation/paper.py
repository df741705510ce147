"""The paper's main table (RACRO, June 2025, table 1), to print beside one's own rows. Facts only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from racro_pl.data.benchmarks import BENCHMARKS

SEVEN = tuple(name for name, benchmark in BENCHMARKS.items() if benchmark.in_average)
"""Names of the benchmarks whose headlines AVG is the mean of, in the paper's order."""


@dataclass(frozen=True)
class PaperRow:
    """One system of the paper."""

    label: str
    scores: dict[str, float]
    """Headline in 0...1 by name of the benchmark."""
    average: float
    """As printed there."""


_PERCENT = (
    ("Qwen2.5-VL-3B", (64.5, 21.9, 28.8, 50.1, 24.2, 13.4, 39.6), 34.6),
    ("Qwen2.5-VL-3B + RACRO (R1-7B)", (64.5, 36.3, 39.3, 51.7, 31.5, 21.4, 46.5), 41.6),
    ("Qwen2.5-VL-3B + RACRO (Qwen3-8B)", (68.6, 39.6, 43.7, 58.6, 32.3, 29.3, 51.9), 46.3),
    ("Qwen2.5-VL-3B + RACRO (R1-32B)", (70.2, 41.5, 43.8, 58.4, 32.5, 30.3, 55.7), 47.5),
    ("Qwen2.5-VL-7B", (70.3, 25.8, 41.0, 57.3, 34.4, 19.4, 46.1), 42.0),
    ("Qwen2.5-VL-7B + RACRO (R1-7B)", (71.9, 38.9, 45.3, 58.7, 37.1, 27.0, 49.7), 46.9),
    ("Qwen2.5-VL-7B + RACRO (Qwen3-8B)", (70.0, 41.5, 44.8, 60.6, 38.6, 26.5, 50.1), 47.4),
    ("Qwen2.5-VL-7B + RACRO (R1-32B)", (74.4, 42.5, 46.6, 61.1, 31.0, 30.3, 55.0), 48.7),
    ("Qwen2.5-VL-32B", (76.8, 37.8, 50.1, 69.0, 43.1, 33.3, 55.0), 52.2),
    ("Qwen2.5-VL-32B + RACRO (R1-7B)", (75.4, 44.5, 52.9, 68.8, 48.3, 35.1, 54.6), 54.2),
    ("Qwen2.5-VL-32B + RACRO (Qwen3-8B)", (75.5, 47.1, 54.9, 67.9, 50.0, 35.7, 58.2), 55.6),
    ("Qwen2.5-VL-32B + RACRO (R1-32B)", (75.9, 46.7, 55.6, 69.0, 48.9, 37.1, 58.6), 56.0),
)

PAPER_ROWS = tuple(
    PaperRow(
        label, {name: round(score / 100, 3) for name, score in zip(SEVEN, scores, strict=True)}, round(average / 100, 3)
    )
    for label, scores, average in _PERCENT
)


def paper_rows(benchmarks: Collection[str]) -> tuple[PaperRow, ...]:
    """The paper's rows if one of ``benchmarks`` (names) is among the seven, else none."""
    return PAPER_ROWS if any(name in SEVEN for name in benchmarks) else ()
