"""Small files in the layouts that the readers take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Rows = list[dict[str, Any] | str | bytes]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images/0.png ... images/9.png, of different sizes."""
    (tmp_path / "images").mkdir()
    for index in range(10):
        Image.new("RGB", (10 + index, 10), "red").save(tmp_path / "images" / f"{index}.png")
    return tmp_path


@pytest.fixture
def write_jsonl(folder: Path) -> Callable[..., str]:
    """Writes rows (strings and bytes as they are) to a file of the folder and returns its path."""

    def write(rows: Rows, name: str = "data.jsonl") -> str:
        lines = [row if isinstance(row, bytes) else row.encode() if isinstance(row, str) else json.dumps(row).encode()
                 for row in rows]  # fmt: skip
        (folder / name).write_bytes(b"\n".join(lines) + b"\n")
        return str(folder / name)

    return write


def row(**changes: Any) -> dict[str, Any]:
    """A good row with some columns changed."""
    return {"id": "a", "question": "How many?", "answer": "3", "image": "images/0.png"} | changes


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path
