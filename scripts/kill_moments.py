"""Kill -9 at random moments of a run; each time the newest checkpoint must load and the run end as if undisturbed.

    python scripts/kill_moments.py [--moments 20] [--steps 6] [--seed 0]

The run is the quickstart, smaller, with a sampling reasoner and a checkpoint after every second step. Prints a table
with a line per moment, and exits with 1 when a line is not as promised. Every run is a process of its own, forked from
this one when the libraries are loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from racro_pl.cli import run  # noqa: E402
from racro_pl.commands import lightning  # noqa: E402, F401 (loaded before the forks)
from racro_pl.training.checkpointing.io import newest_checkpoint  # noqa: E402
from tests.fakes.runs import assert_same_run  # noqa: E402

DEADLINE_S = 600.0


def main() -> int:
    """Parse, run, print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("moment", "captions of step", "leftovers", "checkpoint", "resumes to the end", "as undisturbed")
    random.seed(options.seed)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        straight, seconds = undisturbed(root / "straight", options.steps)
        for moment in range(options.moments):
            line, good = one_moment(root / str(moment), options.steps, seconds, straight)
            table.add_row(str(moment + 1), *line)
            Console(stderr=True).print(moment + 1, *line, highlight=False)
            bad += not good
    Console().print(table)
    print(f"{options.moments - bad} of {options.moments} moments as promised")
    return 1 if bad else 0


def undisturbed(root: Path, steps: int) -> tuple[Path, float]:
    """A whole run: its folder, and seconds per step."""
    pid = start(root, steps)
    wait_for_step(root, 1, pid)
    began = time.monotonic()
    assert ended(pid) == 0, (root / "output.txt").read_text()
    return run_folder(root), (time.monotonic() - began) / steps


def one_moment(root: Path, steps: int, seconds: float, straight: Path) -> tuple[list[str], bool]:
    """Kill a run, take it up, compare. What to print, and whether all is as promised."""
    pid = start(root, steps)
    wait_for_step(root, random.randrange(steps + 1), pid)
    time.sleep(random.uniform(0, 1.5 * seconds))
    os.kill(pid, signal.SIGKILL)
    ended(pid)
    reached, left = last_step(root), sorted(path.name for path in run_folder(root).rglob(".*"))
    newest = newest_checkpoint(run_folder(root))
    line = [str(reached), ", ".join(left) or "-"]
    if newest is None:
        # Nothing to resume from: a run that begins again takes a folder of its own.
        folder, step = root / f"quickstart/version_{int(run_folder(root).is_dir())}", "none yet"
        again = ended(start(root, steps))
    else:
        step = str(torch.load(newest, weights_only=True)["global_step"])
        again = ended(start(root, steps, "--ckpt_path", str(newest)))
        folder = run_folder(root)
    try:
        assert_same_run(folder, straight)
        same = "yes"
    except (AssertionError, OSError) as error:
        same = f"NO: {traceback.extract_tb(error.__traceback__)[-1].line} {str(error)[:200]}"
    return [*line, step, "yes" if again == 0 else f"NO ({again})", same], again == 0 and same == "yes"


def start(root: Path, steps: int, *more: str) -> int:
    """A run in a process of its own; its id."""
    root.mkdir(exist_ok=True)
    pid = os.fork()
    if pid:
        return pid
    output = os.open(root / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    arguments = [
        "fit", "--config", str(ROOT / "configs/quickstart.yaml"), "--runs", str(root),
        "--trainer.max_steps", str(steps), "--trainer.val_check_interval", "3", "--checkpoint.every_n_steps", "2",
        "--trainer.callbacks.init_args.questions", "4", "--data.questions_per_step", "4",
        "--data.reader.init_args.train", "20", "--data.reader.init_args.validation", "8",
        "--model.reward.reasoner.init_args.temperature", "1.0", *more,
    ]  # fmt: skip
    code = 1
    try:
        code = run(arguments)
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for a process; its exit code, negative when a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_folder(root: Path) -> Path:
    """Of the first run below ``root``."""
    return root / "quickstart/version_0"


def last_step(root: Path) -> int:
    """The last step whose captions are on disk."""
    path = run_folder(root) / "captions.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    return int(json.loads(whole[-1])["step"]) if whole else 0


def wait_for_step(root: Path, step: int, pid: int) -> None:
    """Until the run has written a step's captions, or is over."""
    limit = time.monotonic() + DEADLINE_S
    while last_step(root) < step and time.monotonic() < limit:
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
