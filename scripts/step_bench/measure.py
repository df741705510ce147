"""Seconds, tokens and memory of each step, taken the same way on both sides.

Memory is that of the GPU (as PyTorch allocates it) where there is one, else of the process.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Recorder:
    """One record per step: wall and CPU seconds, forwarded tokens, exclusive seconds and peak memory per phase."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self._open: list[tuple[str, float, list[float]]] = []
        self.start()

    def start(self) -> None:
        """A step begins: everything is counted from zero, peak memory too."""
        self._phases: dict[str, float] = defaultdict(float)
        self._peaks: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        self._mark()
        self._peaks.clear()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time and memory of what is inside, less phases within; GPU work is waited for."""
        self._mark()
        begun, inner = time.perf_counter(), [0.0]
        self._open.append((name, begun, inner))
        try:
            yield
        finally:
            self._mark()
            self._open.pop()
            seconds = time.perf_counter() - begun
            self._phases[name] += seconds - inner[0]
            if self._open:
                self._open[-1][2][0] += seconds

    def _mark(self) -> None:
        """The peak of memory since the last mark belongs to the phase that is open now."""
        name = self._open[-1][0] if self._open else ""
        self._peaks[name] = max(self._peaks[name], take_peak())

    def finish(self, phases: dict[str, float] | None = None) -> None:
        """A step ends; ``phases`` are those that the trainer timed itself."""
        self._mark()
        seconds = time.perf_counter() - self._wall
        self.steps.append(
            {
                "seconds": seconds,
                "cpu_seconds": time.process_time() - self._cpu,
                "peak_gib": max(self._peaks.values()),
                "phases": dict(self._phases) | (phases or {}),
                "phase_peaks_gib": {name: peak for name, peak in self._peaks.items() if name},
                "counts": dict(self._counts),
            }
        )

    def count(self, model: Any) -> list[Any]:
        """Count what passes through a transformers model: language tokens, and image patches in Qwen-VL.

        Returns:
            The hooks, to be removed.
        """
        inner = model.model

        def tokens(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            import torch

            states = arguments[0] if arguments else named["hidden_states"]
            kind = "tokens_with_gradient" if torch.is_grad_enabled() else "tokens_without_gradient"
            self._counts[kind] += int(states.shape[0] * states.shape[1])

        def patches(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            self._counts["image_patches"] += int((arguments[0] if arguments else named["hidden_states"]).shape[0])

        hooks = [model.get_decoder().layers[0].register_forward_pre_hook(tokens, with_kwargs=True)]
        if hasattr(inner, "visual"):
            hooks.append(inner.visual.register_forward_pre_hook(patches, with_kwargs=True))
        return hooks


def take_peak() -> float:
    """Highest memory (GiB) since the last call, which counts from here anew; waits for the GPU."""
    if on_gpu():
        import torch

        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
        return float(peak)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    return peak


def on_gpu() -> bool:
    """Whether a GPU does the work here."""
    import torch

    return torch.cuda.is_available()


def summarise(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians, and the quartiles of a step's wall seconds."""

    def median(values: list[float]) -> float:
        return round(statistics.median(values), 4)

    phases = sorted({name for step in steps for name in step["phases"]})
    quartiles = statistics.quantiles([step["seconds"] for step in steps], n=4) if len(steps) > 1 else [0.0, 0.0, 0.0]
    return {
        "steps": len(steps),
        "seconds": median([step["seconds"] for step in steps]),
        "quartiles": [round(quartiles[0], 4), round(quartiles[2], 4)],
        "cpu_seconds": median([step["cpu_seconds"] for step in steps]),
        "peak_gib": round(max(step["peak_gib"] for step in steps), 3),
        "phases": {name: median([step["phases"].get(name, 0.0) for step in steps]) for name in phases},
        "phase_peaks_gib": {
            name: round(max(step["phase_peaks_gib"].get(name, 0.0) for step in steps), 3)
            for name in sorted({name for step in steps for name in step["phase_peaks_gib"]})
        },
        "counts": steps[-1]["counts"],
        "cache_hit_share": round(sum(step.get("cache_hit_share", 0.0) for step in steps) / len(steps), 3),
    }


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    model = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), "?")
    found: dict[str, Any] = {"cpu": model.split(":")[-1].strip(), "cores": os.cpu_count(), "load": os.getloadavg()}
    if on_gpu():
        import torch

        card = torch.cuda.get_device_properties(0)
        found |= {"gpu": card.name, "gpu_gib": round(card.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    return found
