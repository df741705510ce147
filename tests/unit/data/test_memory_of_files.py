"""Files of a few kilobytes that would take gigabytes: refused before they do, whatever reads them."""

from __future__ import annotations

import resource
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

PEAK_MB = 700
"""Of a process that reads a hostile file: the libraries, and some times the allowance of 128 MiB. Without bounds the
files below take 3 to 70 GB."""
READERS = {
    "shards": "from racro_pl.data.benchmarks.sources.parquet import read_shards\n"
    "from racro_pl.data.readers.base import Drops\nread_shards([Path(sys.argv[1])], Drops())",
    "texts of shards": "from racro_pl.data.benchmarks.sources.parquet import read_shards\n"
    "from racro_pl.data.readers.base import Drops\nread_shards([Path(sys.argv[1])], Drops(), images=False)",
    "virl39k": "from racro_pl.data import ViRL39KReader\nViRL39KReader(str(Path(sys.argv[1]).parent)).read('train')",
    "hub": "from racro_pl.data import HubReader\nHubReader(sys.argv[1]).read('train')",
    "table": "from racro_pl.data import TableReader\nTableReader(sys.argv[1]).read('train')",
    "json lines": "from racro_pl.data import JsonlReader\nJsonlReader(sys.argv[1]).read('train')",
    "json rows": "from racro_pl.data.benchmarks.sources.rows import read_json_rows\n"
    "from racro_pl.data.readers.base import Drops\nread_json_rows(Path(sys.argv[1]), Drops())",
    "predictions": "from racro_pl.evaluation.predictions import read_rows\nread_rows(Path(sys.argv[1]))",
}
SCRIPT = """
import sys
from pathlib import Path
from racro_pl.types import RacroError
try:
{body}
except RacroError as error:
    print("refused:", error)
# Not getrusage: its peak outlives exec, and would be that of the tests.
[peak] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print("peak MB", int(peak) // 1000)
"""


def peak_of(path, reader):
    """What a process says that reads a file, and its peak memory in MB. It may not take more than 6 GB of addresses."""
    body = "\n".join(f"    {line}" for line in READERS[reader].split("\n"))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body), str(path)],
        capture_output=True, text=True, timeout=250,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (6_000_000_000, 6_000_000_000)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said, _, peak = done.stdout.rpartition("peak MB")
    return said + done.stderr, int(peak)


def shared_value(path, column, rows, size, kind="string"):
    """A file in which every row has the same large value in one column; every other column of ViRL39K is there too."""
    big = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([b"a" * size], pa.binary()))
    columns = {
        "question": ["q"] * rows, "answer": ["1"] * rows, "PassRate_32BTrained": [0.5] * rows,
        "PassRate_7BBase": [0.5] * rows, "category": ["c"] * rows, "source": ["s"] * rows,
        "qid": [str(index) for index in range(rows)], "image": [["images/0.png"]] * rows,
    }  # fmt: skip
    columns[column] = big if kind == "binary" else big.cast(pa.dictionary(pa.int32(), pa.string()))
    # Without arrow's own schema the column is a plain one to whoever reads it.
    pq.write_table(pa.table(columns), path, compression="zstd", dictionary_pagesize_limit=2**30, store_schema=False)
    assert path.stat().st_size < 20_000
    return path


BEYOND = 160 * 2**20
"""Bytes, more than the allowance of a small file."""


def nested_value(path, rows, repeats, size):
    """A file in which every row lists one large value many times."""
    values = pa.DictionaryArray.from_arrays(
        pa.array([0] * (rows * repeats), pa.int32()), pa.array(["a" * size], pa.string())
    )
    offsets = pa.array(range(0, rows * repeats + 1, repeats), pa.int32())
    table = pa.table({"question": ["q"] * rows, "options": pa.ListArray.from_arrays(offsets, values)})
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=2**30, store_schema=False)
    assert path.stat().st_size < 20_000
    return path


@pytest.mark.parametrize(
    ("column", "reader", "kind"),
    [
        ("question", "virl39k", "string"),
        ("answer", "texts of shards", "string"),
        ("question", "shards", "string"),
        ("image", "shards", "binary"),
        ("question", "hub", "string"),
        ("image", "hub", "binary"),
    ],
)
def test_a_value_that_many_rows_share_is_not_multiplied(root, column, reader, kind):
    path = shared_value(root / "39Krelease.parquet", column, rows=64, size=50_000_000, kind=kind)  # 3.2 GB
    said, peak = peak_of(path, reader)
    assert "refused" in said
    assert "in memory, the limit for a file of" in said
    assert peak < PEAK_MB


def test_a_row_that_lists_one_value_many_times_is_not_multiplied(root):
    path = nested_value(root / "a.parquet", rows=4, repeats=1000, size=20_000_000)  # 80 GB
    said, peak = peak_of(path, "shards")
    assert "in memory, the limit for a file of" in said
    assert peak < PEAK_MB


def test_a_page_that_inflates_is_not_decompressed(root):
    path = shared_value(root / "39Krelease.parquet", "question", rows=1, size=BEYOND)
    said, peak = peak_of(path, "shards")
    assert "at once, the limit for a file of its size is" in said
    assert peak < PEAK_MB / 2


@pytest.mark.parametrize("reader", ["json lines", "json rows", "predictions"])
def test_lines_of_brackets_stay_small(root, reader):
    path = root / "a.jsonl"
    path.write_bytes(b'{"id": "1", "a": [' + b"[]," * 5_000_000 + b"[]]}\n")  # 15 MB, 320 MB when parsed
    said, peak = peak_of(path, reader)
    assert "more than 1000000 values" in said or "line too long" in said
    assert peak < PEAK_MB / 2


def test_json_files_of_brackets_stay_small(root):
    path = root / "a.json"
    path.write_bytes(b"[" + b"{}," * 6_000_000 + b"{}]")  # 18 MB, 450 MB when parsed
    said, peak = peak_of(path, "json rows")
    assert "more than 5000000 values" in said
    assert peak < PEAK_MB / 2
