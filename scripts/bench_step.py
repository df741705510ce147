"""Time one training step, alone, against TRL's GRPOTrainer on the same work, or on the plain path.

    python scripts/bench_step.py --workload long-prompt --peer trl --peer-python /path/to/python --json OUT.json
    python scripts/bench_step.py --workload family --family gemma3 --json OUT.json

With ``--family`` the model is a small random one of that family (``tests/helpers/families``), and the two sides are the
shared-prefix path and the plain one (``docs/models.md``).

The peer lives in an environment of its own: trl 1.16, torch, torchvision, transformers, peft, datasets, accelerate,
httpx. Both sides get the same model folder, images, questions, group size, caption length, micro-batch, adapter shape
and number of threads. Before anything is timed, both compute the loss and every gradient of the same captions from
the same adapter, and must agree. Then they take turns (A B A B), each turn in a new process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from step_bench.measure import summarise
from step_bench.processes import bench_environment, last_lines
from step_bench.workloads import build_family, build_model, find_workload

from tests.helpers.families import BUILDERS

PARTS = Path(__file__).parent / "step_bench"
AGREEMENT = 1e-4
"""Largest difference of a gradient tensor, relative to its largest value: float32 sums in another order."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workload", default="tiny", help="tiny, long-prompt or slow-reward; numbers may be changed: tiny:group=4"
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--peer", choices=["trl"])
    other.add_argument("--family", choices=list(BUILDERS), help="compare the shared-prefix path with the plain one")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=2, help="turns per side")
    parser.add_argument("--steps", type=int, default=4, help="timed steps per turn")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    sides = {"racro_pl": [sys.executable, str(PARTS / "ours.py")]}
    if options.peer:
        sides[options.peer] = [options.peer_python, str(PARTS / "trl_peer.py")]
    if options.family:
        sides["plain"] = [*sides["racro_pl"], "--plain"]
    against = options.peer or ("plain" if options.family else None)
    workload = find_workload(options.workload)
    with tempfile.TemporaryDirectory() as scratch, slow_reasoner(workload.reward_seconds) as server:
        model = Path(scratch) / "model"
        build_family(workload, options.family, model) if options.family else build_model(workload, model)
        work = [options.workload, str(model)]
        result: dict[str, Any] = {"workload": options.workload, "threads": options.threads}
        if options.family:
            result["family"] = options.family
        if against:
            result["agreement"] = agreement(sides, work, Path(scratch), options.threads)
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for turn in range(options.rounds):
            for name, command in sides.items():
                out = Path(scratch) / f"{name}-{turn}.json"
                amount = ["--steps", str(options.steps), "--warmup", str(options.warmup)]
                run([*command, *work, str(out), *amount, *(["--server", server] if server else [])], options.threads)
                turns[name].append(json.loads(out.read_text()))
                print(name, turn, json.dumps(summarise(turns[name][-1]["steps"])), flush=True)
    for name, side in turns.items():
        result[name] = summarise([step for turn in side for step in turn["steps"]]) | {
            "turns": [summarise(turn["steps"])["seconds"] for turn in side],
            "versions": side[0]["versions"],
            "machine": side[-1]["machine"],
        }
    if against:
        ours, peer = result["racro_pl"], result[against]
        result["times_faster"] = round(peer["seconds"] / ours["seconds"], 2)
        result["times_fewer_cpu_seconds"] = round(peer["cpu_seconds"] / ours["cpu_seconds"], 2)
        result["share_of_peak_memory"] = round(ours["peak_gib"] / peer["peak_gib"], 2)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def agreement(sides: dict[str, list[str]], work: list[str], scratch: Path, threads: int) -> dict[str, float]:
    """Both sides' loss on the same captions, and the largest relative difference of any gradient tensor.

    Raises:
        SystemExit: they differ: there is nothing to compare.
    """
    from safetensors.torch import load_file

    found = []
    for name, command in sides.items():
        out = scratch / f"{name}.safetensors"
        run([*command, *work, str(out), "--check", str(scratch / "adapter.safetensors")], threads)
        found.append(load_file(out))
    ours, theirs = found
    if ours.keys() != theirs.keys():
        raise SystemExit(f"the two sides train other tensors, e.g. {sorted(ours.keys() ^ theirs.keys())[:2]}")
    worst = max(
        float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max()) for name in ours if name != "loss"
    )
    losses = {f"loss_{name}": float(tensors["loss"]) for name, tensors in zip(sides, found, strict=True)}
    if not worst < AGREEMENT:
        raise SystemExit(f"the two sides do not compute the same gradients (largest difference {worst:.1e}): {losses}")
    return losses | {"largest_relative_gradient_difference": worst}


def run(command: list[str], threads: int) -> None:
    """One turn, with the threads bound and nothing but errors shown."""
    environment = bench_environment(OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="PASSIVE")
    done = subprocess.run([*command, "--threads", str(threads)], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:2])} failed:\n" + "\n".join(last_lines(done.stderr)))


@contextmanager
def slow_reasoner(seconds: float) -> Iterator[str | None]:
    """The address of a reasoner that takes so long; None for a reward at once."""
    if not seconds:
        yield None
        return
    command = [sys.executable, str(PARTS / "server.py"), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()  # type: ignore[union-attr]
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
