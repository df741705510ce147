"""Parquet and arrow files are read page by page, within limits, or refused."""

from __future__ import annotations

import contextlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from racro_pl.data import ViRL39KReader
from racro_pl.data.benchmarks.sources.parquet import read_shards
from racro_pl.data.readers import arrow, parquet_pages
from racro_pl.data.readers.arrow import read_records
from racro_pl.data.readers.base import Drops
from racro_pl.types import RacroError
from tests.unit.data.test_memory_of_files import shared_value


def rows_of(path):
    return [record.row for record in read_records(path, lambda schema: schema.names)]


TABLE = pa.table(
    {
        "id": [str(index) for index in range(300)],
        "text": ["x" * 3000 + str(index) for index in range(300)],
        "same": ["a long category " * 50] * 300,
        "options": [[f"option {index}", None, "b" * 50] for index in range(300)],
        "rows": [[{"x": "q", "n": index}] for index in range(300)],
        "image": [{"bytes": bytes([index % 256]) * 5000 + b"%d" % index, "path": None} for index in range(300)],
        "number": pa.array([index / 7 for index in range(300)], pa.float64()),
        "nothing": [None] * 300,
    }
)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dictionary": False},
        {"data_page_version": "2.0", "compression": "zstd"},
        {"row_group_size": 70, "data_page_size": 2000, "compression": "gzip"},
        {"dictionary_pagesize_limit": 10_000},  # falls back to plain pages on the way
        {
            "use_dictionary": False,
            "column_encoding": {"text": "DELTA_LENGTH_BYTE_ARRAY", "number": "BYTE_STREAM_SPLIT"},
        },
        {"store_schema": False},
    ],
)
def test_honest_files_are_read_as_they_are(tmp_path, options):
    pq.write_table(TABLE, tmp_path / "a.parquet", **options)
    assert rows_of(tmp_path / "a.parquet") == TABLE.to_pylist()


def test_honest_streams_are_read_as_they_are(tmp_path):
    with pa.ipc.new_stream(tmp_path / "a.arrow", TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=100)
    assert rows_of(tmp_path / "a.arrow") == TABLE.to_pylist()


def test_the_sizes_of_pages_are_those_of_the_footer(tmp_path):
    """An honest footer's sum per column is what the page headers add up to, headers aside."""
    pq.write_table(TABLE, tmp_path / "a.parquet", data_page_size=2000)
    with pq.ParquetFile(tmp_path / "a.parquet") as file, (tmp_path / "a.parquet").open("rb") as raw:
        for index in range(file.metadata.num_columns):
            column = file.metadata.row_group(0).column(index)
            [stated] = parquet_pages._row_groups(raw)
            chunk = parquet_pages._chunk(stated[index], raw)
            assert chunk.values == column.num_values
            assert 0 < chunk.dictionary + chunk.largest <= column.total_uncompressed_size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MAX_ROWS": 299}, "has 300 rows, the limit is 299"),
        ({"MAX_LISTED": 899}, "'options.list.element' lists 900 values, the limit is 899"),
    ],
)
def test_limits_of_a_file(tmp_path, monkeypatch, change, message):
    pq.write_table(TABLE, tmp_path / "a.parquet")
    for name, value in change.items():
        monkeypatch.setattr(parquet_pages, name, value)
    with pytest.raises(RacroError, match=f"a.parquet: .*{message}"):
        rows_of(tmp_path / "a.parquet")


def test_kinds_of_columns_that_stand_for_any_number_of_values_are_refused(tmp_path):
    wide = pa.table({"a": pa.array([b"x" * 100] * 3, pa.binary(100))})
    pq.write_table(wide, tmp_path / "a.parquet")
    with pytest.raises(RacroError, match="cells of 'a' have 100 bytes, the limit is 64"):
        rows_of(tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": ["x", "xy"]}), tmp_path / "a.parquet", use_dictionary=False,
                   column_encoding={"a": "DELTA_BYTE_ARRAY"})  # fmt: skip
    with pytest.raises(RacroError, match="DELTA_BYTE_ARRAY"):
        rows_of(tmp_path / "a.parquet")
    for column in (
        pa.array(["x"] * 3).dictionary_encode(),
        pa.array(["x"] * 3, pa.string_view()),
        pa.array([{"a": 1}] * 3, pa.map_(pa.string(), pa.int64())),
        pa.RunEndEncodedArray.from_arrays([3], ["x"]),
    ):
        table = pa.table({"a": column})
        with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
            writer.write_table(table)
        with pytest.raises(RacroError, match="is not read"):
            rows_of(tmp_path / "a.arrow")


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compressed_streams_are_refused(tmp_path, compression):
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(tmp_path / "a.arrow", TABLE.schema, options=options) as writer:
        writer.write_table(TABLE)
    with pytest.raises(RacroError, match="its buffers are compressed"):
        rows_of(tmp_path / "a.arrow")


def test_offsets_out_of_their_buffer_are_refused(tmp_path):
    """pyarrow does not look at offsets unless it is told to: it would read whatever lies there."""
    table = pa.table({"a": pa.array(["abcd", "efgh"])})
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    data = (tmp_path / "a.arrow").read_bytes()
    offsets = b"".join(number.to_bytes(4, "little") for number in (0, 4, 8))
    assert offsets in data
    bad = b"".join(number.to_bytes(4, "little") for number in (0, 1_000_000, 8))
    (tmp_path / "a.arrow").write_bytes(data.replace(offsets, bad))
    with pytest.raises(RacroError, match="cannot be read"):
        rows_of(tmp_path / "a.arrow")


@pytest.mark.parametrize("seed", range(40))
def test_changed_bytes_give_rows_or_an_error(tmp_path, seed):
    import random

    chance = random.Random(seed)
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE.slice(0, 20), path, compression="zstd" if seed % 2 else "none")
    data = bytearray(path.read_bytes())
    # The second half: page headers, statistics and the footer.
    for _ in range(3):
        data[chance.randrange(len(data) // 2, len(data))] = chance.randrange(256)
    path.write_bytes(bytes(data))
    # Whatever else it raises fails the test.
    with contextlib.suppress(RacroError):
        read_shards([path], Drops(shown=0))


@pytest.mark.parametrize(
    "header", [{1: {}}, {2: {}}, {2: True}, {3: None}, {5: 7}, {5: None}, {8: {1: {}}}, {5: {1: -(2**40), 2: {}}}]
)
def test_a_pages_header_with_values_of_another_kind_is_refused(tmp_path, monkeypatch, header):
    pq.write_table(TABLE.slice(0, 20), tmp_path / "a.parquet")
    read, whole = parquet_pages._header, {1: 0, 2: 100, 3: 100, 5: {1: 20, 2: 0}}

    def changed(data):
        content, length = read(data)
        return (content if 4 in content else {**whole, **header}), length  # a footer has a list of row groups there

    monkeypatch.setattr(parquet_pages, "_header", changed)
    with pytest.raises(RacroError, match=r"a header cannot be read"):
        rows_of(tmp_path / "a.parquet")


def test_statistics_that_would_end_the_process_are_an_error(tmp_path):
    """A histogram of levels with one count too many: pyarrow's own objects for a column abort on it."""
    pq.write_table(pa.table({"a": pa.array([5] * 20)}), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    body, footer = data[: -8 - length], data[-8 - length : -8]
    histogram = b"\x26\x00\x28"  # a list of two: no null, twenty values (zigzag)
    assert footer.count(histogram) == 1
    footer = footer.replace(histogram, b"\x36\x00\x28\x00")
    (tmp_path / "a.parquet").write_bytes(body + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(RacroError, match="histogram size mismatch"):
        rows_of(tmp_path / "a.parquet")


@pytest.mark.parametrize("magic", [b"PARE", b"PAR2"])
def test_an_encrypted_footer_is_refused(tmp_path, magic):
    pq.write_table(TABLE, tmp_path / "a.parquet")
    with (tmp_path / "a.parquet").open("r+b") as file:
        file.seek(-4, 2)
        file.write(magic)
        with pytest.raises(RacroError, match="its footer is encrypted, cut off, or larger"):
            parquet_pages._row_groups(file)


def test_the_allowance_grows_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow, "ALLOWANCE_BYTES", 0)
    texts = [json.dumps(list(range(index, 900))) for index in range(50)]
    incompressible = pa.table({"id": [str(index) for index in range(50)], "text": texts})
    pq.write_table(incompressible, tmp_path / "a.parquet", compression="none")
    assert len(rows_of(tmp_path / "a.parquet")) == 50


def test_an_error_names_the_training_file(root):
    path = shared_value(root / "39Krelease.parquet", "question", rows=64, size=50_000_000)
    with pytest.raises(RacroError, match=str(path)):
        ViRL39KReader(str(root)).read("train")
