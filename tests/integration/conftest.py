"""Parts that are started once: two ranks; for tests marked `vllm` a server with a real small reasoner on a CPU."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from racro_pl.serving.vllm_process import ServerSettings, VllmServer
from tests.helpers.ranks import Ranks

SET_UP = (
    "set up both with `scripts/setup_cpu_vllm.sh .venv-vllm` and "
    "`.venv-vllm/bin/python scripts/fetch_reasoner.py .models/smollm2-135m-instruct`, then run "
    "`RACRO_VLLM_PYTHON=.venv-vllm/bin/python RACRO_REASONER_PATH=.models/smollm2-135m-instruct pytest -m vllm`"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``vllm`` have time to start a server while another one starts."""
    for item in items:
        if item.get_closest_marker("vllm") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def two_ranks() -> Iterator[Ranks]:
    ranks = Ranks(2)
    yield ranks
    ranks.close()


def required_path(variable: str, meaning: str) -> Path:
    # Who asks for these tests (-m vllm) wants them run: a skip would hide that they were not.
    if variable not in os.environ:
        pytest.fail(f"{variable} is not set; it names {meaning}: {SET_UP}")
    path = Path(os.environ[variable]).absolute()
    if not path.exists():
        pytest.fail(f"{variable}={path} does not exist; it names {meaning}: {SET_UP}")
    return path


ONE_PROCESS_LESS = "VLLM_ENABLE_V1_MULTIPROCESSING"
"""At 0 the model of a server on a CPU runs in the engine's process, not in a third one with imports of its own."""


@pytest.fixture(scope="session")
def vllm_python() -> Iterator[Path]:
    """Who asks for it starts servers, which start by a third sooner in two processes than in three."""
    python = required_path("RACRO_VLLM_PYTHON", "the interpreter of an environment with vLLM")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(ONE_PROCESS_LESS, "0")
        yield python


@pytest.fixture(scope="session")
def reasoner_path() -> Path:
    return required_path("RACRO_REASONER_PATH", "the reasoner's model folder")


@pytest.fixture(scope="session")
def vllm_server(vllm_python: Path, reasoner_path: Path, tmp_path_factory) -> Iterator[VllmServer]:
    """One server for all tests. A test that kills it restarts it, on the same port."""
    server = VllmServer(
        reasoner_path,
        # Compiling the model would take longer than the tests' tokens gain from it. In bfloat16 a CPU without AVX512
        # takes minutes for what takes it 16 s in float32.
        ServerSettings(
            str(vllm_python),
            max_model_len=2048,
            extra_args=["--enforce-eager", "--dtype", "float32"],
            start_timeout_s=280,
        ),
        served_model_name="smollm2",
        log_path=tmp_path_factory.mktemp("vllm") / "vllm.log",
    )
    with server:
        yield server


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    if "RACRO_CHROMIUM" not in os.environ:
        pytest.fail("RACRO_CHROMIUM is not set; it names a Chromium, such as /usr/bin/chromium")
    flags = ("no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
             "disable-component-update", "disable-sync")  # fmt: skip
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=os.environ["RACRO_CHROMIUM"], args=[f"--{flag}" for flag in flags]
        )
