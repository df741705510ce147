"""Notices of libraries that tell a user nothing to do are not shown; others are."""

from __future__ import annotations

import logging

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from racro_pl.commands.quiet import quiet_libraries


@pytest.fixture
def shown():
    """What reaches the handlers of Lightning's loggers."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero")]
    for logger in loggers:
        logger.addHandler(handler)
    yield lines
    for logger in loggers:
        logger.removeHandler(handler)


def test_advertising_and_missing_hardware_are_not_told(shown):
    quiet_libraries()
    Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert shown == []
    rank_zero_info("a message of ours")
    assert set(shown) == {"a message of ours"}
