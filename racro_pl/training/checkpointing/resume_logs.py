"""The files of a run folder that is resumed: rows of steps after the checkpoint move to other files.

A run killed after step 7 whose checkpoint is of step 5 has written the rows of steps 6 and 7; the resumed run will
make these steps again. Their rows move to ``captions.replaced.jsonl`` and ``metrics.replaced.csv``, so that each step
stands once in the files proper, and nothing is lost. Lines of the table that are no whole rows move to
``metrics.broken.csv``.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_info

from racro_pl.files import private, write_atomically

METRICS = "metrics.csv"
_STEP = re.compile(rb'\{"step": (\d+)[,}]')


def rewind(folder: Path, step: int) -> None:
    """Move all rows of steps after ``step`` to another file (and a last line that was cut off).

    Args:
        folder: the run's. Its ``*.jsonl`` files whose lines begin with the step, and ``metrics.csv``, are rewound.
        step: steps that the checkpoint has seen.
    """
    for path in sorted(folder.glob("*.jsonl")):
        if not path.name.endswith(".replaced.jsonl"):
            _rewind_lines(path, step)
    if (folder / METRICS).is_file():
        _rewind_table(folder / METRICS, step)


def _rewind_lines(path: Path, step: int) -> None:
    keep = 0
    with path.open("rb") as file:
        for line in file:
            found = _STEP.match(line)
            if keep == 0 and found is None:
                return  # lines of another kind
            if found is None or int(found[1]) > step or not line.endswith(b"\n"):
                break
            keep += len(line)
        if keep == path.stat().st_size:
            return
        file.seek(keep)
        with open(path.with_suffix(".replaced.jsonl"), "ab", opener=private) as replaced:
            shutil.copyfileobj(file, replaced)
    os.truncate(path, keep)


def _rewind_table(path: Path, step: int) -> None:
    header, rows, broken = _parse(path)
    # The logger's axis begins at 0: the row of the first step has 0.
    kept = [row for row in rows if int(row["step"]) < step]
    if len(kept) < len(rows):
        replaced = path.with_suffix(".replaced.csv")
        old_header, old = read_table(replaced) if replaced.is_file() else ([], [])
        header_replaced = sorted({*old_header, *header})
        write_table(replaced, header_replaced, old + [row for row in rows if int(row["step"]) >= step])
    if broken or not header:
        _set_aside(path, broken, whole_header=bool(header))
    if not header:
        path.unlink()  # the logger begins a new one
    elif broken or len(kept) < len(rows):
        write_table(path, header, kept)


def _set_aside(path: Path, lines: list[bytes], *, whole_header: bool) -> None:
    """Keep lines that cannot stay as they are: the logger would append to a cut one, or take it for a header."""
    kept = path.with_suffix(".broken.csv")
    with kept.open("ab") as file:
        file.writelines(line.rstrip(b"\r\n") + b"\n" for line in lines)
    if whole_header:
        found, then = f"cut or damaged rows ({len(lines)})", "their steps may have no row now"
    else:
        found, then = f"no whole header; its lines ({len(lines)})", "a new table begins"
    rank_zero_info(f"resume: {path.name}: {found} moved to {kept.name}; {then}")


def has_row(folder: Path, axis: int) -> bool:
    """Whether ``metrics.csv`` holds a row with this value of the logger's axis."""
    path = folder / METRICS
    return path.is_file() and any(int(row["step"]) == axis for row in read_table(path)[1])


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Header and whole rows of a table of steps; lines that are no such rows are left out."""
    return _parse(path)[:2]


def _parse(path: Path) -> tuple[list[str], list[dict[str, str]], list[bytes]]:
    """Header, whole rows, and all other lines; without a whole header all lines are others."""
    lines = path.read_bytes().splitlines(keepends=True)
    header = _cells(lines[0]) if lines else []
    if "step" not in header:
        return [], [], lines
    rows: list[dict[str, str]] = []
    broken: list[bytes] = []
    for line in lines[1:]:
        cells = _cells(line)
        row = dict(zip(header, cells, strict=False))
        if len(cells) == len(header) and row["step"].isdecimal():
            rows.append(row)
        else:
            broken.append(line)
    return header, rows, broken


def _cells(line: bytes) -> list[str]:
    """None of a line that was cut off: what its last number was cannot be told."""
    try:
        return next(csv.reader([line.decode("utf-8", "replace")]), []) if line.endswith(b"\n") else []
    except csv.Error:  # megabytes without a comma, as a file system leaves them
        return []


def write_table(path: Path, header: list[str], rows: list[dict[str, str]]) -> None:
    """Write a CSV file in one go: a process that is killed meanwhile leaves the old one."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header)
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


class ContinuedCSVLogger(CSVLogger):
    """Lightning's, which deletes a ``metrics.csv`` that it finds; this one appends to it."""

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer, made on first use."""
        if self._experiment is None:
            self._experiment = _ContinuedWriter(self.log_dir)
        return self._experiment  # type: ignore[return-value]


class _ContinuedWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        if Path(self.metrics_file_path).is_file():
            self.metrics_keys = read_table(Path(self.metrics_file_path))[0]

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        write_table(Path(self.metrics_file_path), fieldnames, read_table(Path(self.metrics_file_path))[1])
