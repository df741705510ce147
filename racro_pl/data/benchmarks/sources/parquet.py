"""Hugging Face data sets: parquet shards, ``save_to_disk`` folders. Read with pyarrow alone."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from racro_pl.data.benchmarks.sources.rows import Row, file_images
from racro_pl.data.readers.arrow import read_records
from racro_pl.data.readers.base import MAX_IMAGES, Drops, RowError
from racro_pl.types import ImageRef

if TYPE_CHECKING:
    import pyarrow as pa

_NUMBERED_IMAGE = re.compile(r"image_(\d+)")


def find_shards(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Files of one split below a folder: parquet shards by name, or the arrow files of ``save_to_disk``."""
    files = sorted(path for path in folder.rglob("*.parquet") if path.is_file())
    shards = [path for path in files if _fits(path.name, patterns)]
    if shards:
        return shards
    # `save_to_disk` writes one folder, or one per split. `datasets` leaves caches of what it computed beside the data.
    return sorted(
        path
        for path in (*folder.glob("*.arrow"), *folder.glob("*/*.arrow"))
        if not path.name.startswith("cache-")
        and (path.parent == folder or _fits(f"{path.parent.name}.parquet", patterns))
    )


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name.lower(), pattern) for pattern in patterns)


def read_shards(paths: Sequence[Path], drops: Drops, images: bool = True) -> list[Row]:
    """The rows of parquet or arrow files.

    Images are the columns ``decoded_image``, ``image_1`` to ``image_7``, ``image``, or another that holds some:
    encoded bytes, alone or in a struct ``{bytes, path}``, or paths beside the file.

    Raises:
        RacroError: a file is unreadable, or takes far more memory than its size. A bad row goes to ``drops``.
    """

    def columns(schema: pa.Schema) -> list[str]:
        return [field.name for field in schema if images or not _holds_bytes(field.type)]

    rows = []
    for path in paths:
        for number, (values, repaired) in enumerate(read_records(path, columns), start=1):
            where = f"{path.name}: row {number}"
            with drops.taking(where, repaired):
                if isinstance(values, RowError):
                    raise values
                texts = {name: value for name, value in values.items() if not _is_image(value)}
                rows.append(Row(where, path, texts, _images(values, path) if images else ()))
    return rows


def _holds_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _holds_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


# ------------------------------------------------------------------ images


def _is_image(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_image(each) for each in value)
    return isinstance(value, bytes) or (isinstance(value, Mapping) and set(value) == {"bytes", "path"})


def _images(values: Mapping[str, Any], origin: Path) -> tuple[ImageRef, ...]:
    names = [name for name, value in values.items() if _is_image(value)]
    numbered = sorted((int(match[1]), name) for name in names if (match := _NUMBERED_IMAGE.fullmatch(name)))
    # Those with numbers belong together. Of others one is enough: `decoded_image` is what `image` names.
    preferred = sorted(names, key=lambda name: (name != "decoded_image", name != "image"))
    found = [values[name] for name in ([name for _, name in numbered] or preferred[:1])]
    chosen = [each for value in found for each in (value if isinstance(value, list) else [value])]
    if not chosen:
        return file_images(values, origin)
    if len(chosen) > MAX_IMAGES:
        raise RowError(f"more than {MAX_IMAGES} images", str(len(chosen)))
    return tuple(_ref(each, origin) for each in chosen)


def _ref(value: Any, origin: Path) -> ImageRef:
    if isinstance(value, bytes):
        return ImageRef(data=value)
    if value["bytes"]:
        return ImageRef(data=value["bytes"])
    return file_images({"image": value["path"]}, origin)[0]
