"""The models' names and their size in the package."""

from pathlib import Path

import pytest

from racro_pl.figure_world.models import EMBEDDED, resolve_model
from racro_pl.types import RacroError


def test_unknown_embedded_model():
    assert resolve_model("some/folder") == "some/folder"
    with pytest.raises(RacroError, match="expected one of embedded:figure-captioner"):
        resolve_model("embedded:nothing")


def test_shipped_weights_are_small():
    folders = [Path(resolve_model(f"embedded:{name}")) for name in EMBEDDED if name.startswith("figure-")]
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) < 7_000_000
