"""Rows of parquet files and arrow streams, decoded within bounds that follow from the file's size.

What bounds memory: the sizes of pages, and with them the rows that are decoded at once (:mod:`.parquet_pages`; of an
arrow stream the file itself, whose buffers must not be compressed); then the sum of what the rows take as Python
values, which is counted before any of them is made.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from racro_pl.data.readers.base import RowError
from racro_pl.data.readers.lines import clean_row
from racro_pl.data.readers.parquet_pages import MAX_ROWS, plan_reading
from racro_pl.types import RacroError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 64
"""Rows held at once while a file is read; images are part of them."""
ALLOWANCE_BYTES, ALLOWANCE_RATIO = 128 * 2**20, 16
"""Pages, and all rows as Python values, may each take so many bytes plus so many times the file's size: images do not
shrink, texts to a tenth."""
VALUE_BYTES = 60
"""What a Python value takes beside its characters."""

Choose = Callable[["pa.Schema"], Sequence[str]]
"""From a file's schema to the columns that are wanted."""


class Record(NamedTuple):
    """One row."""

    row: dict[str, Any] | RowError
    repaired: bool


def read_records(path: Path, choose: Choose) -> Iterator[Record]:
    """The rows of a ``.parquet`` file, or of an arrow stream under any other name, in order.

    Args:
        path: the file.
        choose: which columns are wanted; what it raises passes through.

    Raises:
        RacroError: the file is unreadable or takes too much memory. A row whose texts are no UTF-8 is a RowError.
    """
    import pyarrow as pa

    allowance = ALLOWANCE_BYTES + ALLOWANCE_RATIO * path.stat().st_size
    held = rows = 0
    try:
        for batch in _parquet(path, choose, allowance) if path.suffix == ".parquet" else _stream(path, choose):
            rows += batch.num_rows
            held += sum(_bytes_as_python(column) for column in batch.columns) + batch.num_rows * VALUE_BYTES
            if held > allowance:
                raise RacroError(
                    f"{path}: its first {rows} rows take {held} bytes in memory, the limit for a file of "
                    f"{path.stat().st_size} bytes is {allowance}"
                )
            if rows > MAX_ROWS:
                raise RacroError(f"{path} has more than {MAX_ROWS} rows")
            yield from _records(batch)
    except (pa.ArrowException, OSError, MemoryError, ValueError, KeyError) as error:
        raise RacroError(f"{path} cannot be read: {str(error)[:500]}") from error


def _records(batch: pa.RecordBatch) -> Iterator[Record]:
    short = {field.name for field in batch.schema if str(field.type) == "float"}
    try:
        yield from [Record(*clean_row(as_written(row, short))) for row in batch.to_pylist()]
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            yield Record(RowError("not UTF-8", str(error)), False)
        else:
            for index in range(batch.num_rows):
                yield from _records(batch.slice(index, 1))


def as_written(row: dict[str, Any], short: Collection[str]) -> dict[str, Any]:
    """A row whose floats of 32 bits, in the columns ``short``, are the decimals that they were: 0.1 as 0.1.

    Python makes 0.10000000149011612 of it, which no answer would equal.
    """
    if not short:
        return row
    return {
        name: float(str(np.float32(value))) if name in short and isinstance(value, float) else value
        for name, value in row.items()
    }


def _bytes_as_python(array: pa.Array) -> int:
    """About what a column's values take once they are Python values, without making them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    own = VALUE_BYTES * len(array)
    if pa.types.is_struct(kind):
        return own + sum(_bytes_as_python(field) for field in array.flatten())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return own + _bytes_as_python(array.flatten())
    if pa.types.is_dictionary(kind):
        lengths = pc.binary_length(array.dictionary)
        return own + (pc.sum(pc.take(lengths, array.indices)).as_py() or 0)
    if _is_text(kind):
        return own + (pc.sum(pc.binary_length(array)).as_py() or 0)
    return own


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)


def _check_type(name: str, kind: pa.DataType, dictionaries: bool) -> None:
    """Refuse kinds of columns in which a few bytes may stand for any number of values.

    Raises:
        RacroError: it is one; the message lacks the file's name.
    """
    import pyarrow.types as types

    if types.is_struct(kind):
        for field in kind:
            _check_type(name, field.type, dictionaries)
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        _check_type(name, kind.value_type, dictionaries)
    elif types.is_dictionary(kind) and dictionaries and _is_text(kind.value_type):
        return
    elif not (_is_text(kind) or types.is_primitive(kind) or types.is_null(kind) or types.is_decimal(kind)):
        raise RacroError(f"column {name!r:.80} is of type {str(kind)[:80]}, which is not read")


# ------------------------------------------------------------------ the two kinds of files


def _parquet(path: Path, choose: Choose, allowance: int) -> Iterator[pa.RecordBatch]:
    from pyarrow.parquet import ParquetFile

    with path.open("rb") as raw, ParquetFile(path) as plain:
        wanted = list(choose(plain.schema_arrow))
        with _named(path):
            plan = plan_reading(plain, raw, allowance, BATCH_ROWS)
            with ParquetFile(path, read_dictionary=plan.dictionaries) as file:
                for name in wanted:
                    _check_type(name, file.schema_arrow.field(name).type, dictionaries=True)
                for group in range(file.num_row_groups):  # each has dictionaries of its own
                    yield from file.iter_batches(plan.rows, row_groups=[group], columns=wanted)


def _stream(path: Path, choose: Choose) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        with _named(path):
            _check_messages(pa.ipc.MessageReader.open_stream(source))
        source.seek(0)
        with pa.ipc.open_stream(source) as stream:
            wanted = list(choose(stream.schema))
            with _named(path):
                for name in wanted:
                    _check_type(name, stream.schema.field(name).type, dictionaries=False)
            for batch in stream:
                chosen = batch.select(wanted)
                chosen.validate(full=True)  # offsets that lead out of their buffers would crash the process
                for start in range(0, chosen.num_rows, BATCH_ROWS):
                    yield chosen.slice(start, BATCH_ROWS)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Puts the file's name before errors that lack it; those of a caller's ``choose`` have it."""
    try:
        yield
    except RacroError as error:
        raise RacroError(f"{path}: {error}") from error


def _check_messages(messages: pa.ipc.MessageReader) -> None:
    """Refuse compressed batches: how large they get shows only when they are."""
    for message in messages:
        if message.type not in ("schema", "record batch"):
            raise RacroError(f"it holds a message of kind {message.type!r}, which is not read")
        if message.type == "record batch" and _is_compressed(message.metadata.to_pybytes()):
            raise RacroError("its buffers are compressed, which is not read: save it as parquet")


def _is_compressed(metadata: bytes) -> bool:
    """Whether a record batch's message (a flatbuffer, Message.fbs) has the field ``compression``."""
    try:
        (root,) = struct.unpack_from("<I", metadata)
        header = _flatbuffer_field(metadata, root, 2)
        (offset,) = struct.unpack_from("<I", metadata, header)
        return _flatbuffer_field(metadata, header + offset, 3) > 0
    except struct.error as error:
        raise RacroError("a message's header cannot be read") from error


def _flatbuffer_field(data: bytes, table: int, number: int) -> int:
    """Where a table's field is; 0 when it has none such."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    (size,) = struct.unpack_from("<H", data, vtable)
    if 4 + 2 * number >= size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + 4 + 2 * number)
    return table + offset if offset else 0
