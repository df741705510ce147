"""Time a step of Qwen2.5-VL-3B and 7B with 4-bit weights on one GPU, within ten minutes and without anybody watching.

    python scripts/bench_gpu.py --json OUT.json
    python scripts/bench_gpu.py --json OUT.json --peer trl --peer-python /path/to/python
    python scripts/bench_gpu.py --json OUT.json --dry-run          # tiny shapes on a CPU: does it all run?

Nothing is downloaded: weights are random, in the real shapes, NF4 with LoRA rank 16 and gradient checkpointing. One
question with an image of 512 x 512 or 1,024 x 1,024 pixels, 8 captions of exactly 300 tokens. Each case runs in a
process of its own, small ones first, so that memory running out costs one row; what no time is left for is a row
that says so. The peer's environment needs trl, bitsandbytes, torch, torchvision, transformers, peft, datasets.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from step_bench.processes import bench_environment, last_lines

PARTS = Path(__file__).parent / "step_bench"
PHASES = {"sample": "sample", "logprobs": "reference", "update": "loss, backward", "optimizer": "optimizer"}
"""Phases of both sides, and what the table calls them."""
LEAST_SECONDS = 20
"""A case is not begun with less time left: it would only load."""
TINY = (
    "layers=2:hidden=256:inner=256:vocabulary=600:heads=2:kv_heads=1:vision_depth=2:vision_hidden=64:vision_inner=64:"
    "vision_heads=2:tokens=6:group=4:micro_batch=4"
)


def schedule(dry_run: bool, sides: list[str]) -> Iterator[tuple[str, str, int, str]]:
    """(side, model, image side, workload), what needs least first; single parts of a step at the end."""
    models, images = (("tiny",), (56,)) if dry_run else (("3b", "7b"), (512, 1024))
    tiny = f":{TINY}" if dry_run else ""
    whole = [(m, i, f"{'3b' if dry_run else m}:image_side={i}{tiny}") for m in models for i in images]
    yield from ((side, *case) for case in whole for side in sides)
    yield "parts", *whole[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--peer", choices=["trl"])
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--steps", type=int, default=2, help="timed steps per case, after one that is not")
    parser.add_argument("--budget-seconds", type=float, default=570.0, help="for everything together")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on a CPU; its figures mean nothing")
    options = parser.parse_args()
    if not options.dry_run and not has_gpu():
        raise SystemExit("no CUDA device is visible here: nothing to time (--dry-run checks the path on a CPU)")
    commands = {
        "racro_pl": [sys.executable, str(PARTS / "gpu_ours.py")],
        "trl": [options.peer_python, str(PARTS / "gpu_trl.py")],
        "parts": [sys.executable, str(PARTS / "gpu_parts.py")],
    }
    sides = ["racro_pl", *([options.peer] if options.peer else [])]
    amount = ["--steps", str(options.steps), "--device", "cpu" if options.dry_run else "cuda"]
    deadline = time.monotonic() + options.budget_seconds
    rows: list[dict[str, Any]] = []
    for side, model, image, workload in schedule(options.dry_run, sides):
        record = run_case([*commands[side], workload], amount, deadline - time.monotonic())
        rows.append({"side": side, "model": model, "image_side": image} | record)
        result = {"command": shlex.join(sys.argv), "dry_run": options.dry_run, "rows": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n")  # after every row: a kill costs what is left
    console = Console(width=140)
    console.print(steps_table([row for row in rows if row["side"] != "parts"], dry_run=options.dry_run))
    console.print(parts_table([row for row in rows if row["side"] == "parts"]))


def has_gpu() -> bool:
    """Whether PyTorch sees a CUDA device."""
    import torch

    return torch.cuda.is_available()


def run_case(command: list[str], amount: list[str], seconds: float) -> dict[str, Any]:
    """One case in a process of its own: its record, or why there is none. Ends within ``seconds``."""
    if seconds < LEAST_SECONDS:
        return {"status": "not run", "detail": "out of time"}
    environment = bench_environment(PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.json"
        try:
            done = subprocess.run(
                [*command, str(Path(scratch) / "processor"), str(out), *amount],
                env=environment, capture_output=True, text=True, timeout=seconds,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"status": "stopped", "detail": f"not done after the {seconds:.0f} s that were left"}
        if done.returncode or not out.is_file():
            lines = last_lines(done.stderr)
            return {"status": "failed", "detail": f"exit {done.returncode}: {lines[-1][-300:]}", "stderr": lines}
        return dict(json.loads(out.read_text()))


def steps_table(rows: list[dict[str, Any]], dry_run: bool) -> Table:
    """Seconds and peak GiB of every phase; a case without figures says why."""
    what = "dry run, figures mean nothing" if dry_run else "1 question, 8 captions of 300 tokens, NF4 + LoRA"
    shown = Table(title=f"seconds (peak GiB) per step: {what}")
    shown.add_column("case", no_wrap=True)
    for name in (*PHASES.values(), "step", "peak GiB"):
        shown.add_column(name, justify="right")
    for row in rows:
        case = f"{row['model']} {row['image_side']}² {row['side']}"
        if row["status"] != "ok":
            shown.add_row(case, f"{row['status']}: {row['detail']}")
            continue
        cells = [
            f"{row['phases'].get(phase, 0.0):.2f} ({row['phase_peaks_gib'].get(phase, 0.0):.1f})" for phase in PHASES
        ]
        shown.add_row(case, *cells, f"{row['seconds']:.2f}", f"{row['peak_gib']:.1f}")
    return shown


def parts_table(rows: list[dict[str, Any]]) -> Table:
    """Milliseconds and peak GiB of single parts beside what could stand in their place."""
    shown = Table(title="one layer's attention, and the head: milliseconds (peak GiB)")
    shown.add_column("part", no_wrap=True)
    shown.add_column("", justify="right")
    for row in rows:
        case = f"{row['model']} {row['image_side']}²"
        if row["status"] != "ok":
            shown.add_row(case, f"{row['status']}: {row['detail']}")
            continue
        for name, seconds in row["phases"].items():
            shown.add_row(f"{case} {name}", f"{1000 * seconds:.1f} ({row['phase_peaks_gib'][name]:.1f})")
    return shown


if __name__ == "__main__":
    main()
