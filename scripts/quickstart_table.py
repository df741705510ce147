"""Run the quickstart with several seeds, its QLoRA variant and the shuffled-reward control; print the README's table.

    python scripts/quickstart_table.py --seeds 1 2 3 --jobs 2 --out runs/quickstart_table

A seed changes the adapter's initial values, the order of the questions and every sampled caption. The embedded models
and the 500 test questions stay the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
VARIANTS = {
    "LoRA": ["--config", "configs/quickstart.yaml"],
    "QLoRA (NF4)": ["--config", "configs/quickstart_qlora.yaml"],
    "LoRA, rewards shuffled": ["--config", "configs/quickstart.yaml", "--model.reward.shuffle", "true"],
}
TYPES = ("color", "fill", "count", "shade")


def fit(variant: str, seed: int, out: Path, threads: int) -> dict[str, object]:
    """One run; its held-out figures before and after, and its wall time in seconds."""
    name = f"{variant}-{seed}".replace(" ", "_")
    command = [sys.executable, "-m", "racro_pl", "fit", *VARIANTS[variant], "--seed_everything", str(seed)]
    command += ["--data.seed", str(seed), "--runs", str(out), "--name", name]
    start = time.perf_counter()
    with (out / f"{name}.log").open("w") as log:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment).returncode
    if code:
        raise RuntimeError(f"{name} ended with code {code}; see {out / name}.log")
    newest = max((out / name).iterdir(), key=lambda folder: folder.stat().st_mtime)
    figures = json.loads((newest / "held_out.json").read_text())
    print(f"{name}: {figures['before']['accuracy']:.3f} -> {figures['after']['accuracy']:.3f}", file=sys.stderr)
    return {"variant": variant, "seed": seed, "seconds": time.perf_counter() - start, **figures}


def table(runs: list[dict]) -> str:
    """The runs as markdown."""
    lines = [
        "| run | seed | accuracy | colour | fill | count | shade | asked fact stated | true sentences |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        keys = ["accuracy", *(f"accuracy/{kind}" for kind in TYPES), "asked_fact_stated", "true_sentences"]
        cells = [f"{100 * run['before'][key]:.1f} → {100 * run['after'][key]:.1f}" for key in keys]
        lines.append(f"| {run['variant']} | {run['seed']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, sharing the cores")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart_table"))
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        todo = [(variant, seed) for variant in VARIANTS for seed in arguments.seeds]
        runs = list(pool.map(lambda pair: fit(*pair, out, threads), todo))
    (out / "runs.json").write_text(json.dumps(runs, indent=2) + "\n")
    print(table(runs))


if __name__ == "__main__":
    main()
