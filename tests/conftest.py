"""Shapes promised in annotations are checked while testing."""

import logging
import os

# Two OpenMP threads that spin on a shared core make small steps many times slower; must be set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # Workers that test side by side share the cores instead of each taking all of them.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook
from jsonargparse import _common

from tests.helpers import device

# Lightning keeps its messages from pytest if it is first imported while the root logger has no handler.
logging.getLogger().addHandler(logging.NullHandler())

# Hypothesis limits the seconds of an example and of drawing one: a process that waits for a processor would fail.
UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
# The same examples every time; "pytest --hypothesis-profile explore" looks for new ones.
settings.register_profile("fixed", derandomize=True, **UNTIMED)
settings.register_profile("explore", max_examples=5000, **UNTIMED)
settings.load_profile("fixed")

install_import_hook(["racro_pl.losses", "racro_pl.experience"], "beartype.beartype")


@pytest.fixture(autouse=True)
def _every_test_begins_with_unrestricted_imports(monkeypatch):
    """A command restricts what class paths may import for its whole process; here that is the next test's too."""
    denied = dict.fromkeys(_common.default_import_path_denylist, False)
    monkeypatch.setitem(_common.parsing_settings, "import_path_verdicts", denied)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tests of the policy and its training compute: cpu, cuda")


def pytest_configure(config: pytest.Config) -> None:
    try:
        device.choose(config.getoption("--device"))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


LONGEST = (
    "test_gpu_minutes", "test_resume_ranks", "test_quickstart", "test_nodes", "test_bench_gpu", "test_caption_ranks",
    "test_soak", "test_resume",
)  # fmt: skip
"""Modules whose slow tests begin before all others: one that began last would leave the other workers idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who hangs is ended; a slow test on a busy machine does not hang. The longest first."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1200))
    places = {name: place for place, name in enumerate(LONGEST)}
    last = len(LONGEST)
    items.sort(key=lambda item: places.get(item.path.stem, last) if item.get_closest_marker("slow") else last)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and device.device().type != "cuda":
        pytest.skip("needs a card: pytest --device cuda -m 'gpu or not gpu'")


@pytest.fixture
def quick_refusal(monkeypatch) -> None:
    """A server that refuses the connection is asked for its models once."""
    monkeypatch.setattr("racro_pl.reward.http.REFUSED_LIMIT_S", 0.0)


@pytest.fixture
def on_cpu(monkeypatch) -> None:
    """The test computes on the CPU whatever device the run was given: it is about the CPU's kernels."""
    monkeypatch.setattr(device, "_chosen", torch.device("cpu"))


@pytest.fixture
def on_device() -> torch.device:
    """The device that the run was given."""
    return device.device()
