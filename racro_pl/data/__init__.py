"""Data sets as questions. The data module itself is in ``racro_pl.data.datamodule`` (it needs Lightning)."""

from racro_pl.data.readers import (
    FigureWorldReader,
    HubReader,
    JsonlReader,
    MixedReader,
    Reader,
    ReadResult,
    TableReader,
    ViRL39KReader,
)

__all__ = [
    "FigureWorldReader",
    "HubReader",
    "JsonlReader",
    "MixedReader",
    "ReadResult",
    "Reader",
    "TableReader",
    "ViRL39KReader",
]
