"""Prints the oldest versions that pyproject.toml allows, as constraints for pip.

    python scripts/lower_bounds.py > oldest.txt
    python -m venv .venv-oldest && .venv-oldest/bin/pip install -e ".[dev]" -c oldest.txt

CI runs tests in that environment, so that a lower bound is a version that works and not a guess. Needs ``packaging``,
which the development environment holds.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
UNBOUND = {"types-PyYAML"}
"""Stubs: mypy alone reads them, and any version does."""


def requirements(pyproject: Path = PYPROJECT, extras: tuple[str, ...] = ("dev",)) -> list[Requirement]:
    """What a newcomer installs: the project's dependencies and those of ``extras``."""
    project = tomllib.loads(pyproject.read_text())["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def lower_bound(requirement: Requirement) -> str:
    """The version after ``>=``.

    Raises:
        ValueError: the requirement has no lower bound, or several.
    """
    bounds = [part.version for part in requirement.specifier if part.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(f"{requirement}: expected one lower bound, as in '{requirement.name}>=1.2'")
    return bounds[0]


def constraint(requirement: Requirement) -> str:
    """The one version that pip may install."""
    # ===: a CPU build of torch ("+cpu") under the same number, lying on the machine, would not fit PyPI's torchvision.
    sign = "===" if requirement.name in ("torch", "torchvision") else "=="
    return f"{requirement.name}{sign}{lower_bound(requirement)}"


def main() -> int:
    for requirement in requirements():
        if requirement.name not in UNBOUND:
            print(constraint(requirement))
    return 0


if __name__ == "__main__":
    sys.exit(main())
