"""Hugging Face data sets in the plain layout: parquet or arrow files with the images inside, or a stream of rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from racro_pl.data.readers.arrow import as_written, read_records
from racro_pl.data.readers.base import MAX_IMAGES, RowError, Split
from racro_pl.data.readers.fields import image_refs, is_blank
from racro_pl.data.readers.hub_files import download, looks_like_hub_id, part_files, parts_of
from racro_pl.data.readers.lines import clean_row
from racro_pl.data.readers.plain import PlainReader, PlainRow
from racro_pl.files import write_atomically
from racro_pl.images import MAX_FILE_BYTES
from racro_pl.types import ImageRef, RacroError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_HELD_BYTES = 4 * 2**30
"""Encoded images that are held in memory; more go into ``images_folder``."""


class HubReader(PlainReader):
    """Reads a Hugging Face data set in the plain layout, whose images stand in the rows or in files beside them.

    A file, a folder, or a hub id whose files are in the local cache or are downloaded once; parquet and arrow files are
    read with bounded memory and without the package ``datasets``. With ``streaming`` that package (extra ``hub``)
    fetches rows one by one, of any layout that it knows, and nothing is downloaded that is not read.

    Args:
        dataset: a ``.parquet`` or ``.arrow`` file, a folder, or a hub id ``owner/name``.
        train: the data set's name of the part with the training questions; null: none.
        validation: the same for validation.
        test: the same for the test.
        name: which of several data sets (configurations) in the folder or below the id.
        revision: branch, tag or commit of a hub id.
        columns: the data set's own column names, by what they hold, such as ``{question: problem, images: picture}``.
        validation_share: share of the train part, chosen by a hash of the id, to hold out; only without ``validation``.
        test_share: the same for the test split; only without ``test``.
        streaming: fetch rows as they are read.
        max_rows: rows of a part that are read; null: all.
        images_folder: folder to write the images to, by a hash of their bytes, instead of holding them in memory.
    """

    def __init__(
        self,
        dataset: str,
        train: str | None = "train",
        validation: str | None = None,
        test: str | None = None,
        name: str | None = None,
        revision: str | None = None,
        columns: dict[str, str] | None = None,
        validation_share: float = 0.0,
        test_share: float = 0.0,
        streaming: bool = False,
        max_rows: int | None = None,
        images_folder: str | None = None,
    ) -> None:
        parts: dict[Split, str | None] = {"train": train, "validation": validation, "test": test}
        super().__init__(parts, columns, validation_share, test_share)
        if Path(dataset).expanduser().is_file() and sum(part is not None for part in parts.values()) > 1:
            raise RacroError(
                f"{dataset} is one file and so one part: set all but one of train, validation, test to null"
            )
        if max_rows is not None and max_rows < 1:
            raise RacroError(f"max_rows is {max_rows}; expected 1 or more, or null")
        self.dataset, self.name, self.revision = dataset, name, revision
        self.streaming = streaming
        self.max_rows = max_rows
        self.images_folder = Path(images_folder) if images_folder else None
        self._held = 0

    # ------------------------------------------------------------------ rows

    def rows(self, source: str) -> Iterator[PlainRow]:
        """The rows of a part.

        Raises:
            RacroError: the data set is not there, unreadable, or without such a part or column.
        """
        self._held = 0
        return islice(self._streamed(source) if self.streaming else self._from_files(source), self.max_rows)

    def parts(self) -> list[str]:
        """The usual parts that the files of a folder or hub id are of; none where there are no such files.

        Raises:
            RacroError: the data set is not there, or there are several.
        """
        return parts_of(self._folder, self.name)

    def _from_files(self, part: str) -> Iterator[PlainRow]:
        number = 0
        for path in self.files(part):
            labels: dict[str, list[str]] = {}

            def choose(schema: pa.Schema, path: Path = path, labels: dict[str, list[str]] = labels) -> list[str]:
                self.columns.require(str(path), schema.names)
                labels.update(_labels(schema))
                return [each.name for each in schema if each.name in self.columns.used or _is_plain(each.type)]

            for row, repaired in read_records(path, choose):
                number += 1
                yield self._row(part, number, _with_labels(row, labels), repaired, path.parent)

    def files(self, part: str) -> list[Path]:
        """The files of a part.

        Raises:
            RacroError: the data set is not there, or without such a part.
        """
        place = Path(self.dataset).expanduser()
        if place.is_file():
            return [place]
        files = part_files(self._folder, part, self.name)
        if not files:
            there = self.parts()
            advice = "set streaming, which reads other kinds of files too"
            if there:
                advice = f"it has {', '.join(there)}: name one of these"
            raise RacroError(f"{self.dataset} has no parquet or arrow files of a part {part!r}; {advice}")
        return files

    @cached_property
    def _folder(self) -> Path:
        place = Path(self.dataset).expanduser()
        if place.is_dir():
            return place
        if looks_like_hub_id(self.dataset):
            return download(self.dataset, (".parquet", ".arrow"), self.revision)
        raise RacroError(f"{self.dataset} is not there; give a file, a folder, or a hub id such as owner/name")

    def _streamed(self, part: str) -> Iterator[PlainRow]:
        try:
            from datasets import ClassLabel, load_dataset
        except ImportError as error:
            raise RacroError("streaming needs the package datasets: pip install 'racro-pl[hub]'") from error
        try:
            stream = load_dataset(self.dataset, self.name, split=part, revision=self.revision, streaming=True)
            stream = stream.decode(False)  # images are opened by racro_pl.images, within its limits
            features = stream.features or {}
            labels = {name: kind.names for name, kind in features.items() if isinstance(kind, ClassLabel)}
            short = {name for name, kind in features.items() if getattr(kind, "dtype", None) == "float32"}
            if features:
                self.columns.require(self.dataset, features)
            for number, values in enumerate(stream, start=1):
                row, repaired = clean_row(as_written(values, short))
                yield self._row(part, number, _with_labels(row, labels), repaired, Path(self.dataset))
        except RacroError:
            raise
        # The package raises its own errors, those of its HTTP library and of every format, by version.
        except Exception as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), "")
            raise RacroError(f"{self.dataset} cannot be streamed: {type(error).__name__}: {reason[:300]}") from error

    def _row(self, part: str, number: int, row: dict[str, Any] | RowError, repaired: bool, root: Path) -> PlainRow:
        source = Path(self.dataset).stem
        return PlainRow(f"{source} {part} row {number}", f"{part}-{number}", row, repaired, root, source)

    # ------------------------------------------------------------------ images

    def images(self, value: Any, root: Path) -> tuple[ImageRef, ...]:
        """A row's image column: encoded bytes or a struct ``{bytes, path}`` or a path, or a list of one of them."""
        values = value if isinstance(value, list) else [value]
        if all(isinstance(each, str) for each in values):
            return image_refs(value, root)
        if is_blank(values):
            raise RowError("no image")
        if len(values) > MAX_IMAGES:
            raise RowError(f"more than {MAX_IMAGES} images", str(len(values)))
        return tuple(self._image(each, root) for each in values)

    def _image(self, value: Any, root: Path) -> ImageRef:
        data = value.get("bytes") if isinstance(value, Mapping) else value
        if data is None and isinstance(value, Mapping) and value.get("path"):
            return image_refs(value["path"], root)[0]
        if not isinstance(data, bytes):
            raise RowError("image is neither bytes nor a path", type(data).__name__)
        if len(data) > MAX_FILE_BYTES:
            raise RowError("unusable image", f"{len(data)} bytes, the limit is {MAX_FILE_BYTES}")
        if self.images_folder is None:
            self._held += len(data)
            if self._held > MAX_HELD_BYTES:
                raise RacroError(
                    f"{self.dataset}: its images take more than {MAX_HELD_BYTES} bytes of memory; set images_folder to "
                    "a folder where they are kept, or max_rows"
                )
            return ImageRef(data=data)
        return ImageRef(path=_kept(data, self.images_folder))


def _kept(data: bytes, folder: Path) -> Path:
    # Named by content: several processes and runs may share the folder.
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    path = folder / digest[:2] / digest
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data, owner_only=True)
    return path


# ------------------------------------------------------------------ columns


def _is_plain(kind: pa.DataType) -> bool:
    """Whether a column can be a question's metadata: texts, numbers, or lists of them."""
    import pyarrow.types as types

    if types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_type)
    text = types.is_string(kind) or types.is_large_string(kind)
    return text or types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)


def _labels(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of classes, by column: such columns hold numbers, and `datasets` writes what they mean beside them."""
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = told.get("info", {}).get("features", {})
        return {
            name: [str(each) for each in kind["names"]]
            for name, kind in features.items()
            if isinstance(kind, Mapping) and kind.get("_type") == "ClassLabel" and isinstance(kind.get("names"), list)
        }
    except (ValueError, AttributeError, RecursionError):
        return {}


def _with_labels(row: dict[str, Any] | RowError, labels: Mapping[str, list[str]]) -> dict[str, Any] | RowError:
    if isinstance(row, RowError) or not labels:
        return row
    named = {}
    for name, value in row.items():
        if name in labels and isinstance(value, int):
            value = labels[name][value] if 0 <= value < len(labels[name]) else None
        named[name] = value
    return named
