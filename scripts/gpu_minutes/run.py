"""The stages of scripts/gpu_minutes.sh, each in a process of its own, within its limit.

After every stage ``gpu_minutes.json`` in the folder holds what is known: status, seconds, the stage's own result, and
the last 30 lines of stderr of one that failed. A stage that is stopped leaves what it had written until then.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from step_bench.processes import ROOT, bench_environment, last_lines

from gpu_minutes.report_plugin import read_report

SECONDS = 560
"""For all stages together: ten minutes are often what one gets, and the start takes some of them."""
LEAST_SECONDS = 10
PATIENCE = 6
"""By how much a dry run's limits are longer: a CPU that others use too."""
SCRIPTS = ROOT / "scripts"
TINY = (
    "layers=2:hidden=256:inner=256:vocabulary=600:heads=2:kv_heads=1:vision_depth=2:vision_hidden=64:vision_inner=64:"
    "vision_heads=2:tokens=6:group=4:micro_batch=4"
)


@dataclass(frozen=True)
class Stage:
    """One process: what it is called, the most seconds it may take, its command, where it writes its result."""

    name: str
    limit: int
    command: list[str]
    result: Path
    gate: bool = False
    """Whether nothing after it is worth a second when nothing in it works."""


MARKS = "(gpu or not gpu) and not vllm and not slow and not browser"
WORKERS = ["-n", "8", "--dist", "worksteal"]
FEW = {
    "right_policy": ("tests/unit/losses/test_variants.py",),
    "right_training": ("tests/unit/training/test_settings.py", "tests/unit/rollout/test_vllm_settings.py"),
}
"""Tests of a dry run: the whole suite runs elsewhere."""


def pytest_stage(name: str, limit: int, out: Path, dry: bool, *paths: str, gate: bool = False) -> Stage:
    """Tests of the project on the device; what they record comes back as numbers."""
    result = out / f"{name}.jsonl"
    chosen = ["--device", "cpu", *FEW[name]] if dry else ["--device", "cuda", "-m", MARKS, *WORKERS, *paths]
    report = ["-p", "scripts.gpu_minutes.report_plugin", "--test-report", str(result)]
    command = ["pytest", "-q", "-p", "no:cacheprovider", "--no-header", *report, *chosen]
    return Stage(name, limit * (PATIENCE if dry else 1), [sys.executable, "-m", *command], result, gate)


def stages(out: Path, dry: bool) -> list[Stage]:
    """By value: right, a 3B by phase, learns, the peer beside it, a 7B, alternatives. Together more than one call."""
    device = ["--device", "cpu" if dry else "cuda"]
    scale = PATIENCE if dry else 1
    sides = ["56"] if dry else ["512", "1024"]
    small = ["--changes", TINY] if dry else []

    def script(name: str, limit: int, path: str, *before: str, after: tuple[str, ...] = ()) -> Stage:
        result = out / f"{name}.json"
        return Stage(name, limit * scale, [sys.executable, str(SCRIPTS / path), *before, *after, *device], result)

    def steps(model: str, limit: int) -> Stage:
        name = f"step_{model}"
        return script(name, limit, "gpu_minutes/model_steps.py", str(out / f"{name}.json"), model, *sides, *small)

    def case(name: str, limit: int, path: str, model: str, side: str) -> Stage:
        workload = ":".join([model, f"image_side={side}", *([TINY] if dry else [])])
        amount = ("--steps", "1")
        return script(name, limit, path, workload, str(out / "processor"), str(out / f"{name}.json"), after=amount)

    learn_limit = 110 * scale
    options = [str(out / "learns.json"), "--seconds", str(learn_limit - 10)]
    few = SHORT if dry else []
    learns = Stage(
        "learns", learn_limit, [sys.executable, str(SCRIPTS / "gpu_minutes/learn.py"), *options, *device, *few],
        out / "learns.json",
    )  # fmt: skip
    return [
        pytest_stage("right_policy", 100, out, dry, "tests/unit/policy", "tests/unit/losses", gate=True),
        steps("3b", 120),
        pytest_stage("right_training", 150, out, dry, "tests/unit/training", "tests/unit/rollout"),
        learns,
        case("trl_3b", 120, "step_bench/gpu_trl.py", "3b", sides[0]),
        steps("7b", 110),
        case("alternatives", 60, "step_bench/gpu_parts.py", "7b", sides[-1]),
    ]


SHORT = [
    "--trainer.max_steps", "1", "--trainer.val_check_interval", "1", "--trainer.limit_val_batches", "1",
    "--data.reader.train", "32", "--data.reader.validation", "8", "--data.reader.test", "8",
]  # fmt: skip
"""A run of one step, for a dry run."""


def run_stage(stage: Stage, seconds: float) -> dict[str, Any]:
    """What came of it. Its whole process group ends with it."""
    if seconds < LEAST_SECONDS:
        return {"status": "not run", "detail": "no time was left"}
    environment = bench_environment(PYTHONUNBUFFERED="1", KINETO_LOG_LEVEL="99")
    begun = time.monotonic()
    process = subprocess.Popen(
        stage.command, cwd=ROOT, env=environment, text=True, errors="replace", start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    limit = min(stage.limit, seconds)
    try:
        stdout, stderr = process.communicate(timeout=limit)
        status = "ok" if process.returncode == 0 else f"exit {process.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        status = f"stopped after {limit:.0f} s"
    row: dict[str, Any] = {"status": status, "seconds": round(time.monotonic() - begun, 1)}
    if status != "ok":
        row |= {"stderr": last_lines(stderr), "stdout": last_lines(stdout)}
    if stage.result.is_file():
        row["result"] = read_report(stage.result) if stage.result.suffix == ".jsonl" else read_json(stage.result)
    return row


def read_json(path: Path) -> Any:
    """The result, or that it was cut off."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        return {"unreadable": str(error)}


def card(dry: bool) -> dict[str, Any]:
    """Device and versions, read once."""
    import torch
    from step_bench.gpu_case import versions
    from step_bench.measure import machine

    if not dry and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is visible here (--dry-run checks the path on a CPU)")
    return {"machine": machine(), "versions": versions()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("gpu_minutes"))
    parser.add_argument("--only", default="", help="names of stages, separated by commas")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--list", action="store_true", help="print names and limits")
    options = parser.parse_args()
    planned = stages(options.out.resolve(), options.dry_run)
    if options.list:
        print(*(f"{stage.limit:4} s  {stage.name}" for stage in planned), sep="\n")
        return
    chosen = set(filter(None, options.only.split(",")))
    if unknown := chosen - {stage.name for stage in planned}:
        raise SystemExit(f"--only: no stage {', '.join(sorted(unknown))}; expected some of "
                         f"{', '.join(stage.name for stage in planned)}")  # fmt: skip
    sys.exit(run_all([x for x in planned if not chosen or x.name in chosen], options))


def run_all(planned: list[Stage], options: argparse.Namespace) -> int:
    """Stage after stage; 0 when all went well, 3 when the gate stayed shut."""
    deadline = time.monotonic() + options.seconds * (PATIENCE if options.dry_run else 1)
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"command": shlex.join(sys.argv), "dry_run": options.dry_run, **card(options.dry_run)}
    found["stages"] = {}
    code = 0
    for stage in planned:
        row = run_stage(stage, deadline - time.monotonic())
        found["stages"][stage.name] = {"limit": stage.limit, **row}
        (options.out / "gpu_minutes.json").write_text(json.dumps(found, indent=1) + "\n")
        print(f"{stage.name:<16}{row['status']:<22}{row.get('seconds', 0):7.1f} of {stage.limit} s", flush=True)
        for line in row.get("stderr", [])[-3:]:
            print(f"    {line[:200]}", flush=True)
        if row["status"] != "ok":
            code = 1
        if stage.gate and not row.get("result", {}).get("passed"):
            print("nothing in this stage works, so nothing after it would: mend it and try again", flush=True)
            return 3
    return code


if __name__ == "__main__":
    main()
