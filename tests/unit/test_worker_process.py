"""A worker answers each request with its own answer, or is dead."""

from __future__ import annotations

from pathlib import Path

import pytest

from racro_pl.worker_process import WorkerDiedError, WorkerProcess

PATIENT_S = 100.0
ECHO = "for line in sys.stdin: print(line, end='', flush=True)"


@pytest.fixture
def start(tmp_path):
    """Starts a worker that is ready and then runs the given line."""
    started = []

    def start(line: str) -> WorkerProcess:
        script = Path(tmp_path / "worker.py")
        script.write_text(f"import sys\nprint('ready', flush=True)\n{line}\n")
        started.append(WorkerProcess(script, "is tried", "nothing"))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


@pytest.mark.parametrize("fault", [KeyboardInterrupt, SystemExit, MemoryError])
def test_whatever_ends_a_request_ends_the_worker(monkeypatch, start, fault):
    worker = start(ECHO)
    assert worker.ask([1], PATIENT_S) == [1]

    def fail(*_):
        raise fault

    with monkeypatch.context() as changed:
        changed.setattr(worker, "_next", fail)
        with pytest.raises(fault):
            worker.ask([2], PATIENT_S)
    assert not worker.alive
    assert worker._process.poll() is not None
    with pytest.raises(WorkerDiedError):  # and not [2]
        worker.ask([3], PATIENT_S)


def test_a_late_answer_is_nobodys(start):
    worker = start("for line in sys.stdin: sys.stdin.read()")
    with pytest.raises(TimeoutError):
        worker.ask([1], 0.01)
    with pytest.raises(WorkerDiedError):
        worker.ask([2], PATIENT_S)


@pytest.mark.parametrize("words", ['{"result": 1', "12", ""])  # the second is JSON, of 123 perhaps
def test_the_half_of_an_answer_is_a_dead_worker(start, words):
    worker = start(f"sys.stdin.readline(); sys.stdout.write({words!r})")
    with pytest.raises(WorkerDiedError):
        worker.ask([1], PATIENT_S)
    assert not worker.alive


def test_a_request_that_is_no_json_ends_nothing(start):
    worker = start(ECHO)
    with pytest.raises(TypeError):
        worker.ask([object()], PATIENT_S)
    assert worker.ask([1], PATIENT_S) == [1]
