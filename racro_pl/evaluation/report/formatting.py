"""How numbers are written, the same in the terminal and on the page."""

from __future__ import annotations

from racro_pl.evaluation.results import Cell, Comparison, System


def percent(share: float) -> str:
    """``0.6321`` as ``63.2``."""
    return f"{100 * share:.1f}"


def interval(low: float, high: float) -> str:
    """``[58.9, 67.4]``."""
    return f"[{percent(low)}, {percent(high)}]"


def signed(share: float) -> str:
    """``+3.1``, with a true minus sign; what rounds to nothing has none."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\N{MINUS SIGN}")


def p_value(value: float) -> str:
    """``p = 0.031``; never ``p = 0.000``."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def column_title(cell: Cell) -> str:
    """The benchmark's title, with the headline's name where it is not plain accuracy."""
    return cell.title if cell.headline_name == "accuracy" else f"{cell.title} ({cell.headline_name})"


def notes(cell: Cell) -> list[str]:
    """What a reader must know beside the score: part of the split, responses without an answer, no response."""
    found = []
    if not cell.complete:
        found.append(f"† {cell.n:,}/{cell.expected:,}")
    if cell.unextracted > 0:
        found.append(f"∅ {percent(cell.unextracted)} %")
    if cell.unanswered > 0:
        found.append(f"? {cell.unanswered:,}")
    return found


LEGEND = {
    "†": "scored on a part of the split",
    "∅": "share of responses without a recognisable answer, which count as wrong",
    "?": "questions that got no response, which do not count",
}
"""What the symbols of :func:`notes` mean."""


def legend(shown: list[str]) -> str:
    """The meanings of the symbols that begin ``shown``."""
    return "; ".join(f"{symbol} {text}" for symbol, text in LEGEND.items() if any(n.startswith(symbol) for n in shown))


def paired(comparison: Comparison) -> str:
    """``+3.1 [+0.4, +5.7]``."""
    return f"{signed(comparison.difference)} [{signed(comparison.low)}, {signed(comparison.high)}]"


def pair_title(first: System, second: System) -> str:
    """``after against before, both → B · caption``; of systems that share more or less, their whole labels."""
    if (first.mode, first.reasoner) != (second.mode, second.reasoner):
        return f"{second.label}, against {first.label}"
    shared = first.label.removeprefix(first.captioner).strip()
    return f"{second.captioner} against {first.captioner}, both {shared}"


def on_common(comparison: Comparison) -> str:
    """``501 common seed questions (5,010 questions)``."""
    common = f"{comparison.groups:,} common {comparison.unit}"
    return common if comparison.unit == "questions" else f"{common} ({comparison.n:,} questions)"
