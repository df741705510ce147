"""Tiny files in the layouts of the benchmarks."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(width: int = 40, height: int = 30) -> bytes:
    """A picture whose size tells it from others."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return buffer.getvalue()


def base64_png(width: int = 40) -> str:
    return base64.b64encode(png(width)).decode()


def write_tsv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A file as pandas writes it: missing cells are empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_json(path: Path, content: Any, images: Sequence[str] = ()) -> Path:
    """A ``.json`` file (or ``.jsonl``, from a list), and pictures of widths 40, 41, ... relative to its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    else:
        path.write_text(json.dumps(content), encoding="utf-8")
    for number, name in enumerate(images):
        (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / name).write_bytes(png(40 + number))
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], image_columns: Sequence[str]) -> Path:
    """A shard as Hugging Face writes it: images are structs of bytes and path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table_of(rows, image_columns), path)
    return path


def table_of(rows: Sequence[Mapping[str, Any]], image_columns: Sequence[str]) -> pa.Table:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return pa.table(
        {
            name: pa.array(
                [row.get(name) for row in rows],
                type=IMAGE_TYPE if name in image_columns else None,
            )
            for name in columns
        }
    )


def struct(width: int = 40) -> dict[str, Any]:
    return {"bytes": png(width), "path": None}
