"""Cells of CSV and TSV files, read within bounds."""

from __future__ import annotations

import re
from collections.abc import Sequence

from racro_pl.data.readers.base import RowError
from racro_pl.text.cleaning import clean

NO_UTF8 = re.compile("[\udc80-\udcff]")
"""What bytes that are no UTF-8 become with ``errors="surrogateescape"``: their row is left out, the others are read."""


def named_cells(header: Sequence[str], cells: Sequence[str]) -> tuple[dict[str, str], bool]:
    """A row's cells by their columns, cleaned, and whether they had to be.

    Raises:
        RowError: too few or too many cells, or bytes that are no UTF-8.
    """
    if len(cells) != len(header):
        raise RowError("wrong number of cells", f"got {len(cells)}, the header has {len(header)}")
    for name, cell in zip(header, cells, strict=True):
        if not cell.isascii() and NO_UTF8.search(cell):
            raise RowError("not UTF-8", f"column {name!r:.40}: {cell!r:.60}")
    values = dict(zip(header, cells, strict=True))
    cleaned = clean(values)
    return cleaned, cleaned is not values
