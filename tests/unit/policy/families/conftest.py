"""A small model of each family, built when a test first asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from packaging.version import Version

from racro_pl.policy.captioner import Captioner
from racro_pl.policy.families import FAMILIES
from tests.helpers.families import save_small_family
from tests.unit.policy.conftest import build


def skip_unless_supported(kind: str) -> None:
    """Skip a test of a family that the installed transformers does not read right."""
    family = FAMILIES.get(kind.split("-")[0])
    needed = family.transformers if family is not None else None
    if needed is not None and Version(transformers.__version__) < Version(needed):
        pytest.skip(f"{kind} needs transformers {needed}; refused with older ones (test_special)")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small model of a family."""
    folders: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        skip_unless_supported(kind)
        if kind not in folders:
            folders[kind] = save_small_family(tmp_path_factory.mktemp(kind), kind)
        return folders[kind]

    return folder


@pytest.fixture(scope="session")
def captioner_of(small: Callable[[str], Path]) -> Callable[[str], Captioner]:
    """The captioner of a family with LoRA and gradient checkpointing, shared by tests that leave it as it is."""
    built: dict[str, Captioner] = {}

    def captioner(kind: str) -> Captioner:
        if kind not in built:
            built[kind] = build(small(kind))
        return built[kind]

    return captioner
