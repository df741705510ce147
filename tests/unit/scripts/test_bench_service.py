"""The load figures of the service: what is summed up, and a run of the whole script."""

from __future__ import annotations

import json
import sys

import bench_service
import pytest


def test_quantiles_are_values_that_occurred():
    times = [float(value) for value in range(1, 101)]
    assert [bench_service.quantile(times, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert bench_service.quantile([3.0], 0.99) == 3.0


@pytest.mark.slow
def test_a_small_load_is_measured(tmp_path, monkeypatch, capsys):
    place = tmp_path / "load.json"
    arguments = ["--requests", "4", "--clients", "1", "2", "--json", str(place)]
    monkeypatch.setattr(sys, "argv", ["bench_service.py", *arguments])
    bench_service.main()
    first, *rows = json.loads(place.read_text())["rows"]
    assert first["requests_per_s"] > 0
    for row, clients in zip(rows, (1, 2), strict=True):
        assert (row["clients"], row["statuses"]) == (clients, {"200": 4})
        assert 0 < row["p50_s"] <= row["p99_s"]
    assert "2 clients:" in capsys.readouterr().out
