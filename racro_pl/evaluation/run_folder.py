"""The folder of an evaluation: found again when the same one is asked for, new when a name means something else now."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from racro_pl.files import write_atomically
from racro_pl.runs import folder_of, new_version, versions
from racro_pl.types import RacroError

FILE = "run.json"
_KINDS = ("benchmarks", "captioners", "reasoners")


@dataclass
class Identities:
    """What each name of an evaluation stands for: two evaluations that agree can share captions and answers."""

    benchmarks: dict[str, str] = field(default_factory=dict)
    captioners: dict[str, str] = field(default_factory=dict)
    reasoners: dict[str, str] = field(default_factory=dict)

    def agrees_with(self, other: Identities) -> bool:
        """Whether no name means two things, and something is shared."""
        pairs = [(getattr(self, kind), getattr(other, kind)) for kind in _KINDS]
        same = all(_is_same(mine[name], theirs[name]) for mine, theirs in pairs for name in mine.keys() & theirs.keys())
        return same and bool(self.captioners.keys() & other.captioners.keys())

    def joined(self, other: Identities) -> Identities:
        """The names of both."""
        return Identities(*(getattr(other, kind) | getattr(self, kind) for kind in _KINDS))


_STATE = re.compile(r"(?: \d+ \d+)+$")


def _is_same(mine: str, theirs: str) -> bool:
    # Earlier versions noted a folder with questions without the state of the files in it: size and time of each.
    return mine == theirs or (not _STATE.search(theirs) and theirs == _STATE.sub("", mine))


def open_run(runs: Path, name: str, identities: Identities, fresh: bool) -> tuple[Path, bool]:
    """The newest version of ``runs/<name>`` that can be gone on with, else (or if ``fresh``) a new one.

    Returns:
        The folder, and whether it was there.

    Raises:
        RacroError: the name leads elsewhere, or no folder can be made there.
    """
    place = folder_of(runs, name)
    earlier = versions(place)
    if earlier and not fresh:
        known = _read(earlier[-1] / FILE)
        if known is not None and identities.agrees_with(known):
            _write(earlier[-1] / FILE, identities.joined(known))
            return earlier[-1], True
    folder = new_version(place)
    _write(folder / FILE, identities)
    return folder, False


def _read(file: Path) -> Identities | None:
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Identities(**{kind: dict(content[kind]) for kind in _KINDS})
    except (ValueError, KeyError, TypeError) as error:
        raise RacroError(
            f"{file} cannot be read ({error}): move its folder away, or start with --fresh true"
        ) from error


def _write(file: Path, identities: Identities) -> None:
    write_atomically(file, json.dumps(vars(identities), indent=1) + "\n", owner_only=True)
