"""The small models that come with the package, by name: a captioner, the reasoner of its training, and another one."""

from __future__ import annotations

from pathlib import Path

from racro_pl.types import RacroError

PREFIX = "embedded:"
ASSETS = Path(__file__).parent / "assets"
RECKONING_ASSETS = Path(__file__).parents[1] / "reckoning_world/assets"
EMBEDDED = {
    "figure-captioner": ASSETS / "captioner",
    "figure-reasoner": ASSETS / "reasoner",
    "figure-reasoner-b": ASSETS / "reasoner_b",
    "reckoning-captioner": RECKONING_ASSETS / "captioner",
    "reckoning-weak": RECKONING_ASSETS / "weak",
    "reckoning-middle": RECKONING_ASSETS / "middle",
    "reckoning-strong": RECKONING_ASSETS / "strong",
    "reckoning-narrow": RECKONING_ASSETS / "narrow",
}
"""Made by ``scripts/build_figure_models.py`` and ``scripts/build_reckoning_models.py``; ordinary Hugging Face folders.
``figure-reasoner-b`` is of another architecture and saw other rows: no training asks it, so it tells whether captions
are good for another reader. The reckoning world's reasoners are of rising strength; training asks the weak one.
The narrow one cannot add."""


_BEFORE = {f"racro_pl/figures/assets/{each}": ASSETS / each for each in ("captioner", "reasoner", "reasoner_b")}
"""Ends of the paths that adapters exported by earlier releases name as their base."""


def resolve_model(path: str) -> str:
    """The folder of an ``embedded:`` name, or of where an earlier release kept it; any other path or hub id unchanged.

    Raises:
        RacroError: no model of that name is embedded.
    """
    if not path.startswith(PREFIX):
        moved = next((folder for end, folder in _BEFORE.items() if path.rstrip("/").endswith(end)), None)
        return path if moved is None or Path(path).exists() else str(moved)
    name = path.removeprefix(PREFIX)
    if name not in EMBEDDED:
        known = ", ".join(PREFIX + known for known in sorted(EMBEDDED))
        raise RacroError(f"{path!r} is not a model of this package; expected one of {known}, a folder, or a hub id")
    return str(EMBEDDED[name])
