"""Data sets as questions. The data module itself is in ``racro_pl.data.datamodule`` (it needs Lightning)."""

from racro_pl.data.readers import FigureWorldReader, JsonlReader, Reader, ReadResult, ViRL39KReader

__all__ = ["FigureWorldReader", "JsonlReader", "ReadResult", "Reader", "ViRL39KReader"]
