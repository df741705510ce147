"""A card's minutes, rehearsed: stages through their processes on a CPU, limits, and what is left of one that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from gpu_minutes import learn, model_steps, run
from gpu_minutes.report_plugin import read_report
from gpu_minutes.run import Stage
from step_bench.workloads import find_workload

from tests.fakes.vllm import wait_until_gone

ROOT = Path(__file__).parents[3]


def start(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The script, with an empty folder where it unpacks wheels: those that lie here are for a card's machine."""
    site = folder / "site"
    site.mkdir()
    (site / ".done").touch()
    return subprocess.run(
        ["bash", str(ROOT / "scripts/gpu_minutes.sh"), *arguments], capture_output=True, text=True, timeout=1000,
        env=os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "SITE": str(site)},
    )  # fmt: skip


def test_the_script_starts_and_lists_its_stages(tmp_path):
    done = start(tmp_path, "--list")
    assert done.returncode == 0, done.stderr
    names = [line.split()[-1] for line in done.stdout.splitlines()]
    assert names == [stage.name for stage in run.stages(tmp_path, dry=False)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_stages_but_the_peer_are_rehearsed_on_a_cpu(tmp_path):
    """Not the 7B: on a CPU it is the 3B."""
    names = [stage.name for stage in run.stages(tmp_path, dry=True) if stage.name not in ("trl_3b", "step_7b")]
    done = start(tmp_path, str(tmp_path / "out"), "--dry-run", "--only", ",".join(names))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out/gpu_minutes.json").read_text())
    assert found["dry_run"] is True
    assert {"torch", "transformers"} <= found["versions"].keys()
    assert {row["status"] for row in found["stages"].values()} == {"ok"}
    assert found["stages"]["right_policy"]["result"]["passed"] > 10
    for result in found["stages"]["learns"]["result"].values():
        assert result["accuracy"].keys() == {"before", "after"}
    [row] = found["stages"]["step_3b"]["result"]["rows"]
    assert row["status"] == "ok"
    assert row["phases"].keys() == {"sample", "logprobs", "update", "optimizer"}
    assert row["profile"].keys() == row["phases"].keys() - {"sample"}
    assert row["sampling"].keys() == {"static, launched one by one", "growing", "transformers generate"}
    assert all(way["ms"] > 0 for way in row["sampling"].values())
    assert row["ledger_gib"]["peak"] > 0
    assert row["flop_utilisation"] == {"logprobs": None, "update": None}  # of an unknown processor


def test_the_first_stages_together_leave_time_for_the_start(tmp_path):
    planned = run.stages(tmp_path, dry=False)
    assert sum(stage.limit for stage in planned[:4]) <= run.SECONDS == 560
    assert [stage.gate for stage in planned] == [True, *[False] * (len(planned) - 1)]
    assert {stage.name for stage in planned} == {stage.name for stage in run.stages(tmp_path, dry=True)}
    assert all("cuda" in stage.command for stage in planned)
    assert not any("cuda" in stage.command for stage in run.stages(tmp_path, dry=True))


def stage(tmp_path: Path, body: str, limit: int = 30, gate: bool = False) -> Stage:
    return Stage("one", limit, [sys.executable, "-c", body], tmp_path / "one.json", gate)


def test_of_a_stage_that_fails_the_end_of_its_output_is_kept(tmp_path):
    body = "import sys; [print(f'line {i}', file=sys.stderr) for i in range(40)]; raise SystemExit(4)"
    row = run.run_stage(stage(tmp_path, body), 60)
    assert row["status"] == "exit 4"
    assert row["stderr"] == [f"line {i}" for i in range(10, 40)]


def test_a_stage_that_is_stopped_leaves_what_it_had_written_and_no_process(tmp_path, monkeypatch):
    result, child = tmp_path / "one.json", tmp_path / "child"
    body = (
        f"import subprocess, time; open({str(result)!r}, 'w').write('[1]'); p = subprocess.Popen(['sleep', '60']); "
        f"open({str(child)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )

    class Awaited(subprocess.Popen):
        """Its time begins when it has done what it does, however long it took to start."""

        def communicate(self, input=None, timeout=None):
            while timeout is not None and not (child.is_file() and child.read_text()):
                time.sleep(0.02)
            return super().communicate(input, timeout)

    monkeypatch.setattr(run.subprocess, "Popen", Awaited)
    row = run.run_stage(stage(tmp_path, body, limit=1), 60)
    assert row["status"] == "stopped after 1 s"
    assert row["result"] == [1]
    wait_until_gone([int(child.read_text())])


def test_without_time_nothing_is_begun(tmp_path):
    assert run.run_stage(stage(tmp_path, "raise SystemExit(1)"), 5)["status"] == "not run"


def test_a_shut_gate_ends_it_all(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "card", lambda dry: {})
    options = run.argparse.Namespace(out=tmp_path, seconds=60, dry_run=True)
    planned = [stage(tmp_path, "pass", gate=True), stage(tmp_path, "open('never', 'w')")]
    assert run.run_all(planned, options) == 3
    assert list(json.loads((tmp_path / "gpu_minutes.json").read_text())["stages"]) == ["one"]
    assert "mend it" in capsys.readouterr().out


def test_an_unknown_stage_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path), "--only", "step_4b"])
    with pytest.raises(SystemExit, match="no stage step_4b; expected some of right_policy"):
        run.main()


def test_what_tests_record_comes_back_also_when_they_are_cut_off(tmp_path):
    (tmp_path / "test_x.py").write_text(
        "import os, signal\n"
        "def test_a(record_property):\n    record_property('gap', '0.01')\n\ndef test_b():\n    assert 1 == 2\n\n"
        "def test_c():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    report = tmp_path / "x.jsonl"
    plugin = ["-p", "scripts.gpu_minutes.report_plugin", "--test-report", str(report)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", *plugin, str(tmp_path)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=False)
    found = read_report(report)
    assert (found["passed"], found["skipped"]) == (1, 0)
    assert found["recorded"] == {"test_x.py::test_a": {"gap": "0.01"}}
    assert "assert 1 == 2" in found["failed"]["test_x.py::test_b"]


def test_utilisation_counts_two_operations_a_weight_and_token():
    """One layer of hidden 4 and inner 8 with as many key heads: 4*16 + 3*32 = 160 weights; a head of 10 rows, 40."""
    workload = find_workload("3b:hidden=4:inner=8:layers=1:heads=1:kv_heads=1:vocabulary=10:group=2:tokens=5")
    record = {"counts": {"tokens_with_gradient": 2 * 20}, "phases": {"logprobs": 1e-9, "update": 1e-9}}
    flops = 2 * (160 * 20 + 40 * 10)
    found = model_steps.utilisation(workload, record, "NVIDIA H100 80GB HBM3")
    assert found["logprobs"] == pytest.approx(flops / 1e-9 / 989e12, abs=1e-4)
    assert found["update"] == pytest.approx(2 * flops / 1e-9 / 989e12, abs=1e-4)


def test_a_model_that_does_not_fit_is_a_row_for_each_size(tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.\nsecond line")

    monkeypatch.setattr(model_steps, "build", full)
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["model_steps", str(out), "7b", "512", "1024", "--device", "cpu"])
    model_steps.main()
    assert json.loads(out.read_text())["rows"] == [
        {"case": f"7b {side}", "status": "out of memory", "detail": "CUDA out of memory."} for side in (512, 1024)
    ]


def test_metrics_of_a_run_are_read(tmp_path):
    table = tmp_path / "metrics.csv"
    table.write_text("step,seconds/step,val/accuracy\n0,1.0,\n1,3.0,\n1,,0.5\n")
    assert learn.read_metrics(table) == {"val_accuracy": {"1": 0.5}, "median_seconds": {"seconds/step": 2.0}}
