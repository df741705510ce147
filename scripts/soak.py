"""Does a run leak? Trains for hundreds of steps against a reasoner that misbehaves at random, and watches itself.

    python scripts/soak.py [--steps 300] [--share 0.15] [--seed 1]

The embedded captioner learns in this process; the reasoner is the tests' fault server, in a process of its own, which
fails a share of the requests in every way it knows (seeded). Every ``--every`` steps the process's resident memory,
open files, threads and child processes are noted. Behind a warm-up (the first third) their trend must be flat: the
script prints a table, the trends, and ends with status 1 where something grows or a process is left over.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from lightning.pytorch import Callback, Trainer, seed_everything

from racro_pl.commands.quiet import quiet_libraries
from racro_pl.data import FigureWorldReader
from racro_pl.data.datamodule import RacroDataModule
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.reward import HttpReasoner, Scorer
from racro_pl.rollout import TransformersEngine
from racro_pl.training.callbacks.records import CaptionLog
from racro_pl.training.checkpointing.io import RacroCheckpointIO
from racro_pl.training.module import RacroModule
from racro_pl.training.settings import ObjectiveSettings

ROOT = Path(__file__).parents[1]
CONNECTIONS = 8
ALLOWED_GROWTH = {"rss_mib": 20.0, "files": CONNECTIONS / 2, "threads": 1.0, "children": 0.5}
"""From the end of the warm-up to the end, by a straight line through the samples. Files go up and down with the
connections that happen to be open."""


@dataclass(frozen=True)
class Sample:
    """What the process held after a step."""

    step: int
    rss_mib: float
    files: int
    threads: int
    children: int


def take_sample(step: int) -> Sample:
    """Read from /proc (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        step,
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        len(child_processes()),
    )


def child_processes() -> list[int]:
    """Process ids of this process's children, whichever of its threads started them."""
    lists = Path("/proc/self/task").glob("*/children")
    return [int(pid) for path in lists for pid in path.read_text().split()]


class Watch(Callback):
    """Takes the samples, and counts what became of the captions."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.samples: list[Sample] = []
        self.reasons: Counter[str] = Counter()
        self.longest_step_s = 0.0

    def on_train_batch_start(self, *args: object) -> None:
        self._started = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: RacroModule, *args: object) -> None:  # type: ignore[override]
        self.longest_step_s = max(self.longest_step_s, time.monotonic() - self._started)
        for _, rewards in pl_module.last_step:
            self.reasons.update((reason or "scored").split(":", 1)[0] for reason in rewards.reasons)
        if trainer.global_step % self.every == 0:
            self.samples.append(take_sample(trainer.global_step))
            print_row(astuple(self.samples[-1]))


def print_row(cells: Sequence[str | float]) -> None:
    """Cells of equal width; flushed, for who waits at the other end of a pipe."""
    print("".join(f"{cell:>10.1f}" if isinstance(cell, float) else f"{cell:>10}" for cell in cells), flush=True)


def build(url: str) -> tuple[RacroModule, RacroDataModule]:
    """A small run with deadlines of a second or two."""
    module = RacroModule(
        PolicySettings(
            path="embedded:figure-captioner", dtype="float32", min_pixels=3136, max_pixels=3136, lora=LoraSettings(4, 8)
        ),
        TransformersEngine(group_size=4, max_new_tokens=6, questions_per_batch=2),
        Scorer(
            HttpReasoner(
                url, "tiny", concurrency=CONNECTIONS, deadline_s=2.0, attempt_s=1.0, attempts=2, backoff_s=0.05
            ),
            cache="off",
            max_unscored_share=1.0,
        ),
        ObjectiveSettings(updates_per_rollout=1, learning_rate=1e-4),
    )
    return module, RacroDataModule(FigureWorldReader(train=400, validation=4, test=4), questions_per_step=2)


def growth(samples: Sequence[Sample], name: str) -> float:
    """How far a figure rises from the first sample to the last, along the least-squares line."""
    steps, values = [sample.step for sample in samples], [getattr(sample, name) for sample in samples]
    mean_step, mean_value = sum(steps) / len(steps), sum(values) / len(values)
    spread = sum((step - mean_step) ** 2 for step in steps)
    together = sum((step - mean_step) * (value - mean_value) for step, value in zip(steps, values, strict=True))
    return (steps[-1] - steps[0]) * together / spread


def soak(steps: int, share: float, seed: int, every: int) -> list[str]:
    """Run, print, and return what is wrong."""
    quiet_libraries()
    watch = Watch(every)
    children_before = len(child_processes())
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.reasoner_server", str(seed), str(share)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        module, data = build(server.stdout.readline().strip())
        seed_everything(seed)
        print_row(("step", "RSS MiB", "files", "threads", "children"))
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                accelerator="cpu", max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, inference_mode=False,
                default_root_dir=folder, plugins=[RacroCheckpointIO()], callbacks=[watch, CaptionLog()],
            )  # fmt: skip
            trainer.fit(module, datamodule=data)
    finally:
        server.communicate()  # it ends when its standard input does
    print(f"captions: {dict(watch.reasons.most_common())}; longest step {watch.longest_step_s:.1f} s")
    behind_warm_up = watch.samples[len(watch.samples) // 3 :]
    problems = []
    for name, allowed in ALLOWED_GROWTH.items():
        rise = growth(behind_warm_up, name)
        print(f"{name}: {rise:+.2f} from step {behind_warm_up[0].step} on (allowed: {allowed:g})")
        if rise > allowed:
            problems.append(f"{name} grows by {rise:.2f}, more than {allowed:g}")
    if left := len(child_processes()) - children_before:
        problems.append(f"{left} processes are left over")
    if any(thread.name == "reasoner-http" for thread in threading.enumerate()):
        problems.append("the reasoner's thread is left over")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--share", type=float, default=0.15, help="of the requests that go wrong")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=10, help="steps between two samples")
    options = parser.parse_args()
    problems = soak(options.steps, options.share, options.seed, options.every)
    print("\n".join(problems) or "flat")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
