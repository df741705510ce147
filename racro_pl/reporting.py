"""Reports come after results: one that fails costs a line, not what it reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from racro_pl.terminal import get_logger

log = get_logger(__name__)


@contextmanager
def surviving(what: str, kept: Path) -> Iterator[None]:
    """Around a report: an error in it becomes one warning that says what is missing and where the results are.

    Args:
        what: the report, as the warning names it.
        kept: where the results are that have been written before it.
    """
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["no message"])[0][:300]
        log.warning("%s failed (%s: %s); what was made before is in %s", what, type(error).__name__, reason, kept)
