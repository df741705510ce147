"""Run folders: ``runs/<name>/version_k/``. Nothing is ever overwritten."""

from __future__ import annotations

from pathlib import Path

_PREFIX = "version_"


def new_version(folder: Path) -> Path:
    """Create and return the next free ``version_k`` below ``folder``; runs that start side by side get two."""
    version = 0
    while True:
        candidate = folder / f"{_PREFIX}{version}"
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            version += 1
        else:
            return candidate


def versions(folder: Path) -> list[Path]:
    """The versions of a run, oldest first."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))
