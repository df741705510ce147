"""Steps of one model at several image sizes, built once: seconds and peaks by phase, the ledger, where the time goes.

    python scripts/gpu_minutes/model_steps.py OUT.json 3b 512 1024 --device cuda [--changes tokens=6:group=4]

After the timed steps one more is profiled, phase by phase but for sampling: kernels launched, seconds that the card
computed, and the share of the phase in which it did not. Sampling is profiled over few tokens, in several ways, at the
first size. Written after every part.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1]))

from step_bench.gpu_case import versions
from step_bench.gpu_ours import build, run_steps, settings_of
from step_bench.measure import Recorder, machine, summarise
from step_bench.workloads import Workload, find_workload, make_rows, save_processor

from gpu_minutes.sampling_ways import sampling_ways
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.loading import load_encoder
from racro_pl.policy.memory.formulas import Work
from racro_pl.policy.memory.ledger import GIB, PHASES, memory_ledger
from racro_pl.types import ImageRef, Question

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "RTX 4090": 165e12}
"""Dense bfloat16 operations a second by the makers' data sheets."""
LONGEST = 8
"""Kernels of a phase that are named, with all their time."""
NAME = 90
"""Characters kept of a kernel's name."""


class Profiler(Recorder):
    """A recorder that also keeps what each phase launched."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.launched: dict[str, dict[str, Any]] = {}
        # On a card kernels alone: Python takes longer to list all operations than they take themselves.
        self._activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        if name == "sample":  # millions of kernels, which Python would list for minutes
            with super().phase(name):
                yield
            return
        with profile(activities=[self._activity]) as seen, super().phase(name):
            yield
        kernels, seconds, by_name = 0, 0.0, Counter[str]()
        for event in seen.events():
            on_card = str(event.device_type).endswith("CUDA")
            if on_card or (self._activity == ProfilerActivity.CPU and event.cpu_parent is None):
                kernels += 1
                seconds += event.time_range.elapsed_us() / 1e6
                by_name[event.name[:NAME]] += event.time_range.elapsed_us()
        wall = self._phases[name]
        self.launched[name] = {
            "kernels": kernels, "busy_s": round(seconds, 5), "wall_s": round(wall, 5),
            "idle_share": round(max(0.0, 1 - seconds / wall), 3),
            "longest_ms": {name: round(us / 1e3, 2) for name, us in by_name.most_common(LONGEST)},
        }  # fmt: skip


def ledger_of(captioner: Captioner, workload: Workload, folder: Path) -> dict[str, float]:
    """GiB by phase, as computed from shapes."""
    text, png = make_rows(workload, 1)[0]
    prompt = captioner.encode(Question("0", (ImageRef(data=png),), text, "red", "text"))
    work = Work(
        prompt_tokens=len(prompt.input_ids), image_tokens=int(prompt.mm_token_type_ids.sum()),
        caption_tokens=workload.tokens, group_size=workload.group, groups=1, questions=1, sampled_together=1,
    )  # fmt: skip
    found = memory_ledger(captioner.model.get_base_model().config, settings_of(workload, folder), work)
    return {phase: round(found.total(phase) / GIB, 3) for phase in PHASES} | {"peak": round(found.peak / GIB, 3)}


def utilisation(workload: Workload, record: dict[str, Any], card: str) -> dict[str, float | None]:
    """Model FLOPs of the language layers and the head in the log-prob pass and the update, over the card's peak.

    A forward pass takes 2 FLOPs a weight and token, a backward pass through frozen weights as many again;
    recomputation (checkpointing) is not counted, nor are attention's own products.
    """
    kv = workload.hidden * workload.kv_heads // workload.heads
    layer = workload.hidden * (2 * workload.hidden + 2 * kv + 3 * workload.inner)
    captions = workload.group * workload.tokens
    # With checkpointing each token passes twice with gradient.
    tokens = record["counts"]["tokens_with_gradient"] / 2
    forward = 2 * (layer * workload.layers * tokens + workload.hidden * (workload.vocabulary or 1000) * captions)
    peak = next((flops for name, flops in PEAK_FLOPS.items() if name in card), None)
    phases = record["phases"]
    return {
        name: round(passes * forward / phases[name] / peak, 4) if peak and phases.get(name) else None
        for name, passes in (("logprobs", 1), ("update", 2))
    }


def time_steps(
    captioner: Captioner, workload: Workload, folder: Path, device: torch.device, steps: int
) -> dict[str, Any]:
    recorder = Recorder()
    handles = recorder.count(captioner.model.get_base_model())
    try:
        run_steps(captioner, workload, steps + 1, recorder)  # the first is not timed
    finally:
        for handle in handles:
            handle.remove()
    record = summarise(recorder.steps[1:])
    card = torch.cuda.get_device_name() if device.type == "cuda" else ""
    return record | {
        "status": "ok",
        "ledger_gib": ledger_of(captioner, workload, folder),
        "sampled_tokens_per_s": round(workload.group * workload.tokens / record["phases"]["sample"], 1),
        "flop_utilisation": utilisation(workload, record, card),
    }


def profile_step(captioner: Captioner, workload: Workload, device: torch.device) -> dict[str, Any]:
    profiler = Profiler(device)
    run_steps(captioner, workload, 1, profiler)
    return profiler.launched


def write(rows: list[dict[str, Any]], out: Path) -> None:
    out.write_text(json.dumps({"rows": rows, "machine": machine(), "versions": versions()}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("model")
    parser.add_argument("sides", type=int, nargs="+")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--changes", default="", help="of the workload, as find_workload reads them")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    device, rows = torch.device(options.device), []
    captioner: Captioner | None = None
    for side in options.sides:
        name = ":".join(filter(None, [options.model, f"image_side={side}", options.changes]))
        workload, folder = find_workload(name), Path(tempfile.mkdtemp())
        rows.append({"case": f"{options.model} {side}"})
        try:
            if captioner is None:
                captioner = build(workload, folder, device)
            else:  # the same weights, images of another size
                save_processor(workload, folder)
                captioner.encoder = load_encoder(settings_of(workload, folder))
            rows[-1] |= time_steps(captioner, workload, folder, device, options.steps)
            write(rows, options.out)
            rows[-1]["profile"] = profile_step(captioner, workload, device)
            write(rows, options.out)
            if side == options.sides[0]:
                rows[-1]["sampling"] = sampling_ways(captioner, workload, device)
        except torch.OutOfMemoryError as error:
            rows[-1] |= {"status": "out of memory", "detail": str(error).splitlines()[0]}
        write(rows, options.out)


if __name__ == "__main__":
    main()
