"""One file per data set layout, with one small interface."""

from racro_pl.data.readers.base import MAX_IMAGES, Drops, Reader, ReadResult, RowError, Split
from racro_pl.data.readers.figures import FigureWorldReader
from racro_pl.data.readers.hub import HubReader
from racro_pl.data.readers.jsonl import JsonlReader
from racro_pl.data.readers.mixed import MixedReader
from racro_pl.data.readers.reckoning import ReckoningWorldReader
from racro_pl.data.readers.table import TableReader
from racro_pl.data.readers.virl39k import ViRL39KReader

__all__ = [
    "MAX_IMAGES",
    "Drops",
    "FigureWorldReader",
    "HubReader",
    "JsonlReader",
    "MixedReader",
    "ReadResult",
    "Reader",
    "ReckoningWorldReader",
    "RowError",
    "Split",
    "TableReader",
    "ViRL39KReader",
]
