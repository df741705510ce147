"""How a step's time grows with captions per question and with prompt length, alone or beside TRL, as a log-log plot.

    python scripts/bench_scaling.py --peer trl --peer-python /path/to/python \\
        --json docs/results/scaling.json --plot docs/images/scaling.png

The model, the peer and the measures are those of scripts/bench_step.py's long-prompt workload, with one question of
one image a step and captions of 32 tokens. At every point the sides take turns, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bench_step import PARTS, run
from step_bench.measure import summarise
from step_bench.workloads import build_model, find_workload

BASE = "long-prompt:questions=1:tokens=32:micro_batch=4"
"""A micro-batch of 4, not the peer's best of 8: 8 of the longest prompts would take it 15 GB, for 3 % less time."""
GROUPS = (4, 8, 16, 32)
IMAGE_SIDES = (420, 616, 868, 1260, 1792)
"""Multiples of 28 pixels, for prompts of about 256, 512, 1,024, 2,048 and 4,096 tokens."""
FIXED_GROUP, FIXED_SIDE = 8, 616


def points() -> list[tuple[int, int]]:
    """(captions, image side): one of the two varies, the other stays."""
    return [(group, FIXED_SIDE) for group in GROUPS] + [
        (FIXED_GROUP, side) for side in IMAGE_SIDES if side != FIXED_SIDE
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", choices=["trl"])
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--steps", type=int, default=2, help="timed steps per point and side")
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--plot", type=Path, required=True)
    parser.add_argument("--base", default=BASE, help="workload whose captions and image side are varied")
    parser.add_argument("--point", action="append", help="only these: CAPTIONS,IMAGE_SIDE")
    options = parser.parse_args()
    sides = {"racro_pl": [sys.executable, str(PARTS / "ours.py")]}
    if options.peer:
        sides[options.peer] = [options.peer_python, str(PARTS / "trl_peer.py")]
    chosen = [tuple(map(int, point.split(","))) for point in options.point or ()] or points()
    amount = ["--steps", str(options.steps), "--warmup", str(options.warmup)]
    found = []
    for group, side in chosen:
        workload = f"{options.base}:group={group}:image_side={side}"
        found.append({"group": group, "image_side": side} | measure(workload, sides, amount, options.threads))
        print(json.dumps(found[-1]), flush=True)
        result = {"command": shlex.join(sys.argv), "threads": options.threads, "base": options.base, "points": found}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    draw(found, options.plot)


def measure(workload: str, sides: dict[str, list[str]], amount: list[str], threads: int) -> dict[str, Any]:
    """Both sides at one point. A peer that fails there (memory) has a reason instead of figures."""
    shape, record = find_workload(workload), {}
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        build_model(shape, model)
        for name, command in sides.items():
            out = Path(scratch) / f"{name}.json"
            try:
                run([*command, workload, str(model), str(out), *amount], threads)
            except SystemExit as error:
                if name == "racro_pl":
                    raise
                record[name] = {"failed": str(error)[-300:]}
                continue
            turn = json.loads(out.read_text())
            record[name] = summarise(turn["steps"]) | {"versions": turn["versions"], "machine": turn["machine"]}
    # Ours forwards the prompt once, and of every caption all but the last token.
    forwarded = record["racro_pl"]["counts"]["tokens_with_gradient"]
    return {"prompt_tokens": forwarded - shape.questions * shape.group * (shape.tokens - 1)} | record


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """CPU seconds per step against captions (left) and prompt tokens (right), both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, key, fixed, label in (
        (axes[0], "group", ("image_side", FIXED_SIDE), "captions per question"),
        (axes[1], "prompt_tokens", ("group", FIXED_GROUP), "prompt tokens"),
    ):
        line = sorted((point for point in found if point[fixed[0]] == fixed[1]), key=lambda point: point[key])
        for name, style in (("racro_pl", "o-"), ("trl", "s--")):
            drawn = [(point[key], point[name]["cpu_seconds"]) for point in line if "cpu_seconds" in point.get(name, {})]
            if drawn:
                axis.loglog(*zip(*drawn, strict=True), style, label=name)
        axis.set_xlabel(label)
        axis.set_xticks([point[key] for point in line], [f"{point[key]:,}" for point in line], minor=False)
        axis.minorticks_off()
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("CPU seconds per step")
    axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
