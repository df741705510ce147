"""Data sets as questions. The data modules load on first use: they need Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from racro_pl.data.readers.base import Reader, ReadResult
from racro_pl.data.readers.hub import HubReader
from racro_pl.data.readers.jsonl import JsonlReader
from racro_pl.data.readers.mixed import MixedReader
from racro_pl.data.readers.table import TableReader
from racro_pl.data.readers.virl39k import ViRL39KReader
from racro_pl.data.readers.worlds import FigureWorldReader, ReckoningWorldReader
from racro_pl.lazy import lazy_names

if TYPE_CHECKING:
    from racro_pl.data.benchmark_datamodule import BenchmarkDataModule
    from racro_pl.data.datamodule import RacroDataModule

__all__ = [
    "BenchmarkDataModule",
    "FigureWorldReader",
    "HubReader",
    "JsonlReader",
    "MixedReader",
    "RacroDataModule",
    "ReadResult",
    "Reader",
    "ReckoningWorldReader",
    "TableReader",
    "ViRL39KReader",
]

__getattr__ = lazy_names(
    __name__,
    {
        "racro_pl.data.benchmark_datamodule": "BenchmarkDataModule",
        "racro_pl.data.datamodule": "RacroDataModule",
    },
)
