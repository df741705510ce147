"""A step's metrics by themselves."""

import torch

from racro_pl.training.metrics.step import StepMetrics


def test_a_run_on_the_cpu_does_not_begin_to_use_a_card_that_is_there(monkeypatch):
    def begin(*_: object) -> None:
        raise AssertionError("this would open a CUDA context")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    for name in ("synchronize", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, begin)
    metrics = StepMetrics()
    with metrics.phase("sample"):
        pass
    assert metrics.reduced(lambda values, kind: values)["memory/peak_gib"] > 0.01  # the process's own
