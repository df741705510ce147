"""Data sets as questions. The data modules load on first use: they need Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from racro_pl.data.readers import (
    FigureWorldReader,
    HubReader,
    JsonlReader,
    MixedReader,
    Reader,
    ReadResult,
    ReckoningWorldReader,
    TableReader,
    ViRL39KReader,
)
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
