import threading
from types import SimpleNamespace

import pytest

from tests.helpers import shake


@pytest.mark.parametrize(("side", "main_waits"), [("caller", True), ("worker", False)])
def test_one_side_of_a_start_is_delayed(monkeypatch, side, main_waits):
    delayed: list[int] = []  # identifiers: a thread that has not begun is no Thread yet
    monkeypatch.setattr(shake, "time", SimpleNamespace(sleep=lambda seconds: delayed.append(threading.get_ident())))
    other = threading.Thread(target=lambda: None)
    with monkeypatch.context() as patch:
        shake.Shaker(side).install(patch.setattr)
        other.start()
        other.join()
    assert (threading.get_ident() in delayed) == main_waits
    assert other.ident in delayed  # by its start, or as the one that says that it has started


def test_delays_get_rare_after_the_first(monkeypatch):
    delays: list[float] = []
    monkeypatch.setattr(shake, "time", SimpleNamespace(sleep=delays.append))
    event = threading.Event()
    with monkeypatch.context() as patch:
        shake.Shaker("worker").install(patch.setattr)
        for _ in range(2 * shake.ALWAYS):
            event.set()
    assert shake.ALWAYS <= len(delays) < 1.2 * shake.ALWAYS
    assert all(shake.SECONDS[0] <= delay <= shake.SECONDS[1] for delay in delays)
