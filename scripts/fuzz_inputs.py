"""Feeds random changes of good inputs to everything that reads strangers' bytes, and reports what does not hold.

    python scripts/fuzz_inputs.py --minutes 10
    python scripts/fuzz_inputs.py --targets images chat --minutes 1 --seed 7

Data files, images, adapters, replies of servers, predictions, graded answers (scripts/fuzz_parts/targets.py). An input
may be taken, or refused with an error that the program knows; any other exception, a killed process, more time or more
memory than the limits is a crash. Each target runs in a process of its own, which is ended and started again when an
input does not end.

The summary counts inputs, crashes, the slowest input and the most memory that one input took, by target. Inputs of
crashes are kept below ``--out``. The exit code is 1 where anything crashed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from fuzz_parts.targets import TARGETS
from fuzz_parts.worker import Tally, keep, work

CONTEXT = multiprocessing.get_context("spawn")
START_LIMIT_S = 300.0
"""For a worker to load what it needs, on a busy machine."""


def fuzz(name: str, seconds: float, seed: int, out: Path, limit_s: float, limit_mib: int) -> Tally:
    """Feed one target for so many seconds of its own, in as many processes after each other as it takes."""
    total, spent, attempt = Tally(), 0.0, 0
    while spent < seconds:
        folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=out))
        spent += one_process(
            name, seed + 1000 * attempt, folder, seconds - spent, limit_s, limit_mib, total, again=attempt > 0
        )
        attempt += 1
    return total


def one_process(
    name: str, seed: int, folder: Path, seconds: float, limit_s: float, limit_mib: int, total: Tally, again: bool
) -> float:
    """Seconds that one worker took; what it met is added to ``total``.

    Loading counts only where a target is loaded again: a process that dies at once must not take for ever.
    """
    begun, tallies = CONTEXT.Value("d", 0.0), CONTEXT.SimpleQueue()
    started = time.monotonic()
    stop = started + START_LIMIT_S + seconds
    arguments = (name, seed, folder, limit_mib, begun, tallies, seconds)
    process = CONTEXT.Process(target=work, args=arguments)
    process.start()
    overdue, fed_since = False, None
    while process.is_alive() and not overdue:
        time.sleep(0.05)
        while not tallies.empty():
            total.add(tallies.get())
        if begun.value and fed_since is None:
            fed_since = time.monotonic()
        overdue = 0 < begun.value < time.monotonic() - limit_s or time.monotonic() > stop
    if overdue:
        process.kill()
    process.join()
    if begun.value and fed_since is None:  # it died of its first input since the last look
        fed_since = time.monotonic()
    while not tallies.empty():
        total.add(tallies.get())
    if overdue or process.exitcode:
        ended = f"no end within {limit_s:g} s" if overdue else f"process ended with exit code {process.exitcode}"
        total.inputs += 1
        if fed_since is None:
            raise SystemExit(f"{name}: the worker did not take its first good input ({ended})")
        keep(folder, name, ended, total.crash(ended, "a hang, or a fault of a library"))
    shutil.rmtree(folder)
    return time.monotonic() - (started if again else fed_since or started)


def report(tallies: dict[str, Tally]) -> str:
    """One line a target, and one a crash."""
    rows = [f"{'target':16} {'inputs':>9} {'refused':>9} {'crashes':>8} {'slowest s':>10} {'memory MiB':>11}"]
    for name, tally in tallies.items():
        crashes = sum(tally.crashes.values())
        measured = f"{tally.slowest_s:10.2f} {tally.largest_mib:11.0f}"
        rows.append(f"{name:16} {tally.inputs:9} {tally.refused:9} {crashes:8} {measured}")
        rows += [f"    {count} x {what}: {tally.messages[what]}" for what, count in tally.crashes.items()]
    inputs, crashes = (
        sum(each) for each in zip(*((t.inputs, sum(t.crashes.values())) for t in tallies.values()), strict=True)
    )
    return "\n".join([*rows, f"inputs tried: {inputs}, crashes: {crashes}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together")
    parser.add_argument(
        "--targets", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="TARGET",
        help="some of " + ", ".join(f"{name} ({target.about})" for name, target in TARGETS.items()) + "; default: all",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="the same seed tries the same inputs")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="targets at a time")
    parser.add_argument("--limit-s", type=float, default=20.0, help="seconds that one input may take")
    parser.add_argument("--limit-mib", type=int, default=1024, help="memory that one input may take")
    parser.add_argument("--out", type=Path, default=None, help="folder for the inputs of crashes; default: a new one")
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp(prefix="fuzz-"))
    out.mkdir(parents=True, exist_ok=True)
    seconds = 60 * given.minutes * min(given.jobs, len(given.targets)) / len(given.targets)
    with ThreadPoolExecutor(given.jobs) as pool:
        runs = {
            name: pool.submit(fuzz, name, seconds, given.seed, out, given.limit_s, given.limit_mib)
            for name in given.targets
        }
        tallies = {name: run.result() for name, run in runs.items()}
    print(report(tallies))
    crashed = any(tally.crashes for tally in tallies.values())
    if crashed:
        print(f"inputs of crashes: {out}")
    return 1 if crashed else 0


if __name__ == "__main__":
    sys.exit(main())
