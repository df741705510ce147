"""How much a parquet file will take once it is decoded, from the headers of its pages.

The file's footer states sizes too, but a reader allocates what the pages' headers say, and a footer may say anything.
Where the pages are is read from the footer here and not by pyarrow's objects for its columns: those end the process
where statistics are broken (a C++ exception that nothing catches; pyarrow 26). Footers and headers are Thrift structs
in the compact protocol (https://github.com/apache/thrift, thrift-compact-protocol.md); their fields are those of
parquet-format's ``parquet.thrift``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar

from racro_pl.types import RacroError

if TYPE_CHECKING:
    from pyarrow.parquet import ColumnSchema, FileMetaData, ParquetFile

T = TypeVar("T")
MAX_ROWS = 1_000_000
"""Rows of one file."""
MAX_LISTED = 10_000_000
"""Values of one column of lists in a row group: equal ones take no room in the file, and some 20 bytes each here."""
MAX_FIXED_BYTES = 64
"""Longest cells of a column of fixed-size bytes, which take their room even where they are null."""
_MAX_HEADER = 65_536
_MAX_FOOTER = 32 * 2**20
_MAGIC = b"PAR1"
_MAX_DEPTH = 8
_DICTIONARY_PAGE = 2
# Fields of PageHeader; of the headers of data pages, version 1 and 2, with that of their encoding; of either of these.
_TYPE, _UNCOMPRESSED, _COMPRESSED = 1, 2, 3
_DATA_HEADERS = {5: 2, 8: 4}
_NUM_VALUES = 1
# Fields of FileMetaData, RowGroup, ColumnChunk; then of ColumnMetaData.
_ROW_GROUPS, _COLUMNS, _META_DATA = 4, 1, 3
_ALL_VALUES, _TOTAL_COMPRESSED, _DATA_PAGE, _DICTIONARY_PAGE_PLACE = 5, 7, 9, 11
_PLAIN, _PLAIN_DICTIONARY, _DELTA_LENGTH, _RLE_DICTIONARY = 0, 2, 6, 8
_COPIED = frozenset({_PLAIN, _DELTA_LENGTH})
"""Encodings with every value's own bytes in the page."""
_SHARED = frozenset({_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY})
"""Encodings that can be read as dictionaries."""


class Chunk(NamedTuple):
    """One column in one row group."""

    dictionary: int
    """Bytes of its dictionary, decompressed."""
    largest: int
    """Bytes of its largest data page, decompressed."""
    values: int
    encodings: frozenset[int]
    """Of its data pages."""


class Plan(NamedTuple):
    """How a file is decoded within its allowance."""

    rows: int
    """Rows at once."""
    dictionaries: list[str]
    """Columns to read as dictionaries: one row may hold a value there any number of times, which is then held once."""


def plan_reading(file: ParquetFile, raw: IO[bytes], allowance: int, most_rows: int) -> Plan:
    """How to decode a file so that pages and rows never take more than about the allowance each.

    A value of a row is no longer than its page, or the dictionary: so few rows are decoded at once that even such
    values fit.

    Args:
        file: the opened file, of which the footer is read.
        raw: its bytes.
        allowance: bytes.
        most_rows: rows at once, where memory allows them.

    Raises:
        RacroError: there is no such way, or the pages are not where the footer says; the message lacks the file's name.
    """
    footer: FileMetaData = file.metadata
    if footer.num_rows > MAX_ROWS:
        raise RacroError(f"it has {footer.num_rows} rows, the limit is {MAX_ROWS}")
    columns = [file.schema.column(index) for index in range(footer.num_columns)]
    encodings: dict[str, frozenset[int]] = {column.path: frozenset() for column in columns}
    rows = most_rows
    for group, stated in enumerate(_row_groups(raw)):
        total = 1
        if len(stated) != len(columns):
            raise RacroError(f"row group {group} has {len(stated)} columns, the file has {len(columns)}")
        for column, place in zip(columns, stated, strict=True):
            chunk = _chunk(place, raw)
            encodings[column.path] |= chunk.encodings
            total += chunk.dictionary + chunk.largest
            if column.max_repetition_level and chunk.values > MAX_LISTED:
                raise RacroError(f"{column.path!r:.80} lists {chunk.values} values, the limit is {MAX_LISTED}")
        if total > allowance:
            raise RacroError(
                f"decoding row group {group} takes {total} bytes at once, the limit for a file of its size is "
                f"{allowance}: is it an honest file? If so, write it again with smaller pages"
            )
        rows = min(rows, allowance // total)
    return Plan(rows, [column.path for column in columns if _is_dictionary(column, encodings[column.path])])


def _is_dictionary(column: ColumnSchema, encodings: frozenset[int]) -> bool:
    if column.physical_type == "FIXED_LEN_BYTE_ARRAY" and column.length > MAX_FIXED_BYTES:
        raise RacroError(f"cells of {column.path!r:.80} have {column.length} bytes, the limit is {MAX_FIXED_BYTES}")
    if column.physical_type != "BYTE_ARRAY":
        return False
    repeated = column.max_repetition_level > 0 and not encodings <= _COPIED
    if not encodings <= (_SHARED if repeated else _SHARED | _COPIED):
        raise RacroError(
            f"{column.path!r:.80} is encoded in a way that is not read (DELTA_BYTE_ARRAY, or several in one file): "
            "write it again with dictionary or plain encoding"
        )
    return repeated


def _row_groups(raw: IO[bytes]) -> list[list[dict[int, Any]]]:
    """For every row group and every column in it, the footer's ColumnMetaData."""
    end = raw.seek(0, 2) - 8
    raw.seek(max(end, 0))
    tail = raw.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or not 0 < length <= min(end, _MAX_FOOTER):
        raise RacroError(f"its footer is encrypted, cut off, or larger than {_MAX_FOOTER} bytes")
    raw.seek(end - length)
    footer, _ = _header(raw.read(length))
    groups = (_field(group, _COLUMNS, list) for group in _field(footer, _ROW_GROUPS, list))
    return [[_field(column, _META_DATA, dict) for column in columns] for columns in groups]


def _chunk(column: dict[int, Any], raw: IO[bytes]) -> Chunk:
    place, size, stated = (_field(column, field, int, -1) for field in (_DATA_PAGE, _TOTAL_COMPRESSED, _ALL_VALUES))
    if min(place, size, stated) < 0:
        raise RacroError("a column has no place in the file")
    if 0 < (first := _field(column, _DICTIONARY_PAGE_PLACE, int, 0)) < place:
        place = first
    end = place + size
    dictionary = largest = values = 0
    encodings = set()
    while place < end and values < stated:
        raw.seek(place)
        header, length = _header(raw.read(_MAX_HEADER))
        kind, size, stored = (_field(header, field, int, -1) for field in (_TYPE, _UNCOMPRESSED, _COMPRESSED))
        if size < 0 or stored < 0:
            raise RacroError("a page has no size")
        if kind == _DICTIONARY_PAGE:
            dictionary = max(dictionary, size)
        else:
            largest = max(largest, size)
            for field, encoding in _DATA_HEADERS.items():
                if field in header:
                    inner = _field(header, field, dict)
                    values += max(0, _field(inner, _NUM_VALUES, int, 0))
                    encodings.add(_field(inner, encoding, int, -1))
        place += length + stored
    return Chunk(dictionary, largest, max(values, stated), frozenset(encodings))


def _field(struct: dict[int, Any], field: int, kind: type[T], default: T | None = None) -> T:
    value = struct.get(field, default)
    if type(value) is not kind:
        raise RacroError("a header cannot be read: it holds another kind of value than parquet's")
    return value


def _header(data: bytes) -> tuple[dict[int, Any], int]:
    """A header, and how long it is."""
    reader = _Compact(data)
    try:
        return reader.struct(), reader.place
    except (IndexError, ValueError) as error:
        raise RacroError("a header cannot be read") from error


class _Compact:
    """As much of Thrift's compact protocol as is used. Ints, structs and lists of structs are kept."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        return dict(self._fields(depth))

    def _fields(self, depth: int) -> Iterator[tuple[int, Any]]:
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._zigzag()
            yield field, self._value(head & 15, depth)

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):  # a boolean is its own type
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind in (7, 8):  # a double; bytes
            return self._skip(8 if kind == 7 else self._varint())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            if head & 15 == 12:
                return [self.struct(depth + 1) for _ in range(count)]
            for _ in range(count):
                self._value(3 if head & 15 in (1, 2) else head & 15, depth + 1)
            return None
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError(f"type {kind}")

    def _skip(self, count: int) -> None:
        self.place += count
        if self.place > len(self.data):
            raise IndexError

    def _byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("number too long")
        return value | byte << shift

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
