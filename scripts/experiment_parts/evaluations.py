"""``racro-pl test`` of finished captioners: which there are for which tables, and their figures."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiment_parts.runs import (
    AGAINST,
    HABIT,
    JOINT,
    JOINT_FIGURES,
    LOOKING,
    PENALTY,
    PREPARED,
    RECKONING,
    RECKONING_CONTROLS,
    ROOT,
    Row,
    Run,
)

BEFORE = "reckoning_before"
"""The reckoning world's captioner as it comes, in an evaluation."""
FIGURES_BEFORE = "before"
"""The figure world's."""
EMBEDDED = {BEFORE: "embedded:reckoning-captioner", FIGURES_BEFORE: "embedded:figure-captioner"}
TENTATIVE = " + tentative"


@dataclass(frozen=True)
class Evaluation:
    """Captioners on the 500 test questions, alone and through all reasoners of their world, in one process."""

    name: str
    """Of its folder, and of its task."""
    config: str
    """The published configuration, whose captioners give way to these."""
    modes: tuple[str, ...]
    tables: tuple[str, ...]
    """That show it."""
    rows: tuple[Row, ...] = ()
    """Whose runs, with every seed."""
    others: tuple[str, ...] = ()
    """Captioners that no run made."""

    def captioners(self, seeds: Sequence[int], out: Path) -> dict[str, str]:
        """Path by name; the runs have to be finished."""
        found = {name: EMBEDDED.get(name) or str(out / name / PREPARED[name]) for name in self.others}
        return found | {run.name: str(run.folder(out)) for run in self.runs(seeds)}

    def runs(self, seeds: Sequence[int]) -> list[Run]:
        """Of all rows."""
        return [Run(row, seed) for row in self.rows for seed in seeds]

    def command(self, out: Path) -> tuple[str, ...]:
        """What to run when the configuration is written."""
        return "racro_pl", "test", "--config", str(self._config(out)), "--runs", str(out)

    def write_config(self, seeds: Sequence[int], out: Path) -> None:
        """When the runs are finished: with their newest versions."""
        settings: dict[str, Any] = yaml.safe_load((ROOT / self.config).read_text())
        limits = {key: value for key, value in settings["captioners"][0].items() if key not in ("name", "path")}
        captioners = self.captioners(seeds, out)
        settings["captioners"] = [{"name": name, "path": path, **limits} for name, path in captioners.items()]
        settings |= {"name": self.name, "modes": list(self.modes)}
        self._config(out).write_text(yaml.safe_dump(settings, sort_keys=False))

    def _config(self, out: Path) -> Path:
        return out / f"{self.name}.yaml"

    def folder(self, out: Path) -> Path:
        """Of the newest results."""
        files = (out / self.name).glob("version_*/results.json")
        return max(files, key=lambda file: file.stat().st_mtime).parent


def _figures(name: str, tables: tuple[str, ...], rows: tuple[Row, ...] = (), *others: str) -> Evaluation:
    modes = ("direct", "caption")
    return Evaluation(f"evaluation_{name}", "configs/test_figures.yaml", modes, tables, rows, others)


def _reckoning(name: str, tables: tuple[str, ...], rows: tuple[Row, ...] = (), *others: str) -> Evaluation:
    modes = ("direct", "caption", "caption+tentative")
    return Evaluation(f"evaluation_{name}", "configs/test_reckoning.yaml", modes, tables, rows, others)


_BOTH = ("reckoning", "reckoning_controls")
EVALUATIONS = (
    _figures("figures_before", ("against", "joint_figures"), (), FIGURES_BEFORE),
    _figures("against", ("against",), AGAINST),
    _figures("penalty", ("penalty",), PENALTY, HABIT),
    _figures("joint_figures", ("joint_figures",), JOINT_FIGURES),
    _reckoning("reckoning_before", _BOTH, (), BEFORE),
    _reckoning("reckoning", _BOTH, RECKONING),
    _reckoning("reckoning_controls", ("reckoning_controls",), RECKONING_CONTROLS[len(RECKONING) :]),
    _reckoning("joint", ("joint",), JOINT, LOOKING),
)
"""Every captioner is tested once. Separate, so that each begins when its runs are finished and fails by itself."""


def evaluations(tables: Collection[str]) -> list[Evaluation]:
    """Those that some tables show."""
    return [each for each in EVALUATIONS if set(each.tables) & set(tables)]


def accuracies(evaluation: Path) -> dict[str, dict[str, float]]:
    """An evaluation's figures.

    Args:
        evaluation: its folder.

    Returns:
        By captioner (a run's name, :data:`BEFORE`, ...): accuracy by ``direct``, by the reasoner's name, and by that
        with :data:`TENTATIVE`.
    """
    found: dict[str, dict[str, float]] = {}
    for cell in json.loads((evaluation / "results.json").read_text())["cells"]:
        system = cell["system"]
        key = (system["reasoner"] or "direct") + (TENTATIVE if system["mode"] == "caption+tentative" else "")
        found.setdefault(system["captioner"], {})[key] = cell["headline"]
    return found
