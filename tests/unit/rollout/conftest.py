"""Fixtures of several files."""

from __future__ import annotations

from pathlib import Path

import pytest

from racro_pl.policy.captioner import Captioner
from tests.fakes.models import save_small_model
from tests.unit.policy.conftest import build


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("rollout"), "qwen2_5_vl")


@pytest.fixture
def captioner(folder: Path) -> Captioner:
    return build(folder)
