"""Hugging Face data sets as files: found in the hub's cache, or fetched into it; and which files are of which split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from racro_pl.types import RacroError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PARTS = ("train", "validation", "valid", "val", "dev", "test")
_SUFFIXES = (".parquet", ".arrow")


def looks_like_hub_id(name: str) -> bool:
    """Whether a name that is no path may be an ``owner/name`` of the hub."""
    return _HUB_ID.fullmatch(name) is not None


def download(hub_id: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    """Folder with the hub's files that match, from the local cache when they are there.

    Raises:
        RacroError: neither the hub nor the cache has it.
    """
    from huggingface_hub import snapshot_download

    try:
        wanted = [f"*{each}" for each in patterns]
        return Path(snapshot_download(hub_id, repo_type="dataset", revision=revision, allow_patterns=wanted))
    # The hub's client raises its own errors, those of its HTTP library and plain OSErrors, by version.
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RacroError(
            f"{hub_id!r} is no file or folder here, and no data set of that name is in the local Hugging Face cache or "
            f"to be had from the hub "
            f"({type(error).__name__}: {reason[:160]}); download it where there is a network, and give its folder"
        ) from error


def cached(hub_id: str) -> bool:
    """Whether the local Hugging Face cache holds something of a data set."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return (Path(HF_HUB_CACHE) / f"datasets--{hub_id.replace('/', '--')}" / "snapshots").is_dir()


def part_files(folder: Path, part: str, config: str | None) -> list[Path]:
    """The parquet or arrow files of one part of a data set, in order; none where the folder has no such part.

    A file belongs to the part that its name begins with (``train-00000-of-00002.parquet``) or that its folder is
    called (``train/0000.parquet``). Where no name tells a part, all files are ``train``.

    Args:
        folder: as downloaded, or as ``save_to_disk`` writes it.
        part: such as ``train``.
        config: name of one of several data sets in the folder.

    Raises:
        RacroError: there are several data sets, and ``config`` tells none of them.
    """
    # `datasets` leaves caches of what it computed beside the data.
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in _SUFFIXES and path.is_file() and not path.name.startswith("cache-")
    )
    if config is not None:
        found = [path for path in found if config in path.relative_to(folder).parts[:-1]]
        if not found:
            raise RacroError(f"{folder} has no folder {config!r} with parquet or arrow files; check name")
    files = [path for path in found if _is_of(path, folder, part)]
    if part == "train" and not any(_is_of(path, folder, each) for path in found for each in _PARTS):
        files = found
    configs = sorted({path.relative_to(folder).parent.as_posix() for path in files if path.parent.name != part})
    if len(configs) > 1:
        raise RacroError(
            f"{folder} holds several data sets: {', '.join(configs)[:400]}; set name to one of them, or give its "
            "folder alone"
        )
    return files


def parts_of(folder: Path, config: str | None) -> list[str]:
    """The usual parts that a data set's files are of; none where it has no parquet or arrow files.

    Raises:
        RacroError: as :func:`part_files`.
    """
    return [part for part in _PARTS if part_files(folder, part, config)]


def _is_of(path: Path, folder: Path, part: str) -> bool:
    named = re.fullmatch(rf"{re.escape(part)}(?:-\d.*)?", path.stem) is not None
    return named or part in path.relative_to(folder).parts[:-1]
