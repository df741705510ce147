"""One case of scripts/bench_gpu.py: its arguments, and its record, also when memory runs out. Both sides use it."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from step_bench.measure import Recorder, machine, summarise
from step_bench.workloads import Workload, find_workload


@dataclass(frozen=True)
class Case:
    """What to run: a workload, where its processor goes, on what, and how many steps, warm-up counted."""

    workload: Workload
    folder: Path
    device: torch.device
    steps: int


def run_case(description: str | None, steps: Callable[[Case], Recorder]) -> None:
    """Read the command line, run the steps, write their summary or that memory ran out."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", type=find_workload)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    case = Case(options.workload, options.folder, torch.device(options.device), options.warmup + options.steps)
    try:
        record = summarise(steps(case).steps[options.warmup :]) | {"status": "ok"}
    except torch.OutOfMemoryError as error:
        record = {"status": "out of memory", "detail": str(error).splitlines()[0]}
    options.out.write_text(json.dumps(record | {"machine": machine(), "versions": versions()}))


def versions() -> dict[str, Any]:
    """Of the packages that the figures depend on, those that are installed."""
    from importlib import metadata

    found = {}
    for name in ("torch", "transformers", "peft", "bitsandbytes", "trl", "racro-pl"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
