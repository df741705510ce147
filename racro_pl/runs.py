"""Run folders: ``runs/<name>/version_k/``. Nothing is ever overwritten."""

from __future__ import annotations

from pathlib import Path

from racro_pl.types import RacroError

_PREFIX = "version_"


def folder_of(runs: Path, name: str) -> Path:
    """Where the versions of a run lie: ``runs/<name>``.

    Raises:
        RacroError: the name leads elsewhere.
    """
    if not name.strip() or Path(name).is_absolute() or ".." in Path(name).parts or Path(name) == Path():
        raise RacroError(f"--name is {name!r}; expected a folder below --runs, which is {str(runs)!r}")
    return runs / name


def new_version(folder: Path) -> Path:
    """Create and return the next free ``version_k`` below ``folder``; runs that start side by side get two.

    Raises:
        RacroError: no folder can be made there.
    """
    try:
        # Here, not with each version: a dangling link in the way would look like a version that is taken, for ever.
        folder.mkdir(parents=True, exist_ok=True)
        version = 0
        while True:
            candidate = folder / f"{_PREFIX}{version}"
            try:
                candidate.mkdir()
            except FileExistsError:
                version += 1
            else:
                return candidate
    except OSError as error:
        raise RacroError(
            f"no run folder can be made below {folder} ({error.strerror}: {error.filename}); choose another place with "
            "--runs, or change what is there"
        ) from error


def versions(folder: Path) -> list[Path]:
    """The versions of a run, oldest first."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))
