"""Both quickstarts by the command itself, side by side: does held-out accuracy rise as on a CPU, and how fast?

    python scripts/gpu_minutes/learn.py OUT.json --device cuda --seconds 100 [more options of `fit`]

The model is small and waits for launches, so two runs take hardly longer than one.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from step_bench.processes import ROOT, bench_environment, last_lines

BFLOAT16 = ["--model.policy.dtype", "bfloat16"]
RUNS = {
    "lora bf16": ["--config", "configs/quickstart.yaml", *BFLOAT16],
    "qlora nf4": ["--config", "configs/quickstart_qlora.yaml", *BFLOAT16],
}


def begin(arguments: list[str], device: str, more: list[str], runs: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "racro_pl", "fit", *arguments, "--runs", str(runs), "--name", "run"]
    where = ["--trainer.accelerator", "gpu" if device == "cuda" else "cpu", "--trainer.devices", "1"]
    return subprocess.Popen(
        [*command, *where, *more], cwd=ROOT, env=bench_environment(COLUMNS="110"),
        stdout=(runs / "out").open("w"), stderr=(runs / "err").open("w"), text=True,
    )  # fmt: skip


def record(process: subprocess.Popen[str], runs: Path, begun: float, deadline: float) -> dict[str, Any]:
    """What a run left, also one that had to be stopped."""
    try:
        code = process.wait(timeout=max(0.0, deadline - time.monotonic()))
        status = "ok" if code == 0 else f"exit {code}"
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        status = "stopped at its limit"
    found: dict[str, Any] = {"status": status, "seconds": round(time.monotonic() - begun, 1)}
    for held_out in runs.glob("run/version_0/held_out.json"):
        both = json.loads(held_out.read_text())
        found["accuracy"] = {when: both[when]["accuracy"] for when in ("before", "after") if when in both}
    for table in runs.glob("run/version_0/metrics.csv"):
        found |= read_metrics(table)
    if status != "ok":
        found["stderr"] = last_lines((runs / "err").read_text())
    return found


def read_metrics(table: Path) -> dict[str, Any]:
    """Validation accuracy by step, and the median of each kind of seconds."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    seconds = [name for name in (rows[0] if rows else {}) if name.startswith("seconds/")]
    return {
        "val_accuracy": {row["step"]: float(row["val/accuracy"]) for row in rows if row.get("val/accuracy")},
        "median_seconds": {
            name: round(statistics.median(values), 4)
            for name in seconds
            if (values := [float(row[name]) for row in rows if row[name]])
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=100.0)
    options, more = parser.parse_known_args()  # the rest is for `fit`
    begun = time.monotonic()
    folders = {name: Path(tempfile.mkdtemp()) for name in RUNS}
    started = {name: begin(RUNS[name], options.device, more, folders[name]) for name in RUNS}
    found = {}
    for name, process in started.items():
        found[name] = record(process, folders[name], begun, begun + options.seconds)
        options.out.write_text(json.dumps(found, indent=1))
    for name, result in found.items():
        if result["status"] != "ok":
            print(name, *result["stderr"], sep="\n", file=sys.stderr)
    sys.exit(any(result["status"] != "ok" for result in found.values()))


if __name__ == "__main__":
    main()
