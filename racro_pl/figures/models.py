"""The two small models that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from racro_pl.types import RacroError

PREFIX = "embedded:"
ASSETS = Path(__file__).parent / "assets"
EMBEDDED = {"figure-captioner": ASSETS / "captioner", "figure-reasoner": ASSETS / "reasoner"}
"""Made by ``scripts/build_figure_models.py``; ordinary Hugging Face folders."""


def resolve_model(path: str) -> str:
    """The folder of an ``embedded:`` name; any other path or hub id unchanged.

    Raises:
        RacroError: no model of that name is embedded.
    """
    if not path.startswith(PREFIX):
        return path
    name = path.removeprefix(PREFIX)
    if name not in EMBEDDED:
        known = ", ".join(PREFIX + known for known in sorted(EMBEDDED))
        raise RacroError(f"{path!r} is not a model of this package; expected one of {known}, a folder, or a hub id")
    return str(EMBEDDED[name])
