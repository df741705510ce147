"""Seconds, tokens and memory of each step, taken the same way on both sides."""

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
    """One record per step: wall and CPU seconds, exclusive seconds per phase, forwarded tokens, peak memory."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self._open: list[tuple[str, float, list[float]]] = []
        self.start()

    def start(self) -> None:
        """A step begins: everything is counted from zero, the process's peak memory too."""
        self._phases: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        Path("/proc/self/clear_refs").write_text("5")
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time spent inside, less that of phases within."""
        begun, inner = time.perf_counter(), [0.0]
        self._open.append((name, begun, inner))
        try:
            yield
        finally:
            self._open.pop()
            seconds = time.perf_counter() - begun
            self._phases[name] += seconds - inner[0]
            if self._open:
                self._open[-1][2][0] += seconds

    def finish(self, phases: dict[str, float] | None = None) -> None:
        """A step ends; ``phases`` are those that the trainer timed itself."""
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        seconds = time.perf_counter() - self._wall
        self.steps.append(
            {
                "seconds": seconds,
                "cpu_seconds": time.process_time() - self._cpu,
                "peak_rss_gib": int(peak.split()[1]) / 2**20,
                "phases": dict(self._phases) | (phases or {}),
                "counts": dict(self._counts),
            }
        )

    def count(self, model: Any) -> None:
        """Count what passes through a transformers Qwen-VL model: language tokens and image patches."""
        inner = model.model

        def tokens(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            import torch

            states = arguments[0] if arguments else named["hidden_states"]
            kind = "tokens_with_gradient" if torch.is_grad_enabled() else "tokens_without_gradient"
            self._counts[kind] += int(states.shape[0] * states.shape[1])

        def patches(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            self._counts["image_patches"] += int((arguments[0] if arguments else named["hidden_states"]).shape[0])

        inner.language_model.layers[0].register_forward_pre_hook(tokens, with_kwargs=True)
        inner.visual.register_forward_pre_hook(patches, with_kwargs=True)


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
        "peak_rss_gib": round(max(step["peak_rss_gib"] for step in steps), 3),
        "phases": {name: median([step["phases"].get(name, 0.0) for step in steps]) for name in phases},
        "counts": steps[-1]["counts"],
    }


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    model = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), "?")
    return {"cpu": model.split(":")[-1].strip(), "cores": os.cpu_count(), "load": os.getloadavg()}
