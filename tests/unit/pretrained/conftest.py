"""Folders of the embedded models, changed in one way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from racro_pl.figure_world.models import EMBEDDED

Spoil = Callable[..., Path]


@pytest.fixture
def spoil(tmp_path: Path) -> Spoil:
    """``spoil("captioner", tensors=..., fields=...)``: a copy with other tensors, or other fields of a JSON file."""

    def make(
        name: str,
        tensors: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        fields: dict[str, Any] | None = None,
        file: str = "config.json",
    ) -> Path:
        folder = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(EMBEDDED[f"figure-{name}"], folder)
        weights = folder / "model.safetensors"
        if tensors is not None:
            changed = {key: tensor.contiguous() for key, tensor in tensors(load_file(weights)).items()}
            save_file(changed, weights, metadata={"format": "pt"})
        if fields is not None:
            content = json.loads((folder / file).read_text()) | fields
            (folder / file).write_text(json.dumps(content))
        return folder

    return make
