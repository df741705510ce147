"""Every experiment of docs/experiments.md, unattended: runs, evaluations, tables and pictures.

    python scripts/experiments.py --publish

makes all runs (those that a stopped call left finished are kept), tests the captioners and writes the tables and
pictures to OUT; with --publish also into docs/experiments.md and README.md.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from experiment_parts.collect import collect
from experiment_parts.joint import in_stages, prepare
from experiment_parts.report import PICTURES, fill, merged, tables
from experiment_parts.runs import DESCRIBING, HABIT, ROOT, TABLES, carry_out, execute, planned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, of one thread each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument(
        "--publish", action="store_true", help="write into docs/ and README.md, beside the tables that are there"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands and go")
    options = parser.parse_args()
    out = options.out.absolute()
    runs = planned(options.tables, options.seeds)
    if options.dry_run:
        print("\n".join(shlex.join(run.command(out)) for run in runs))
        return
    start = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    for table, name in {"penalty": HABIT, "reckoning_described": DESCRIBING}.items():
        if table in options.tables and not (out / name / "adapter").is_dir():
            teach = [sys.executable, "-m", f"experiment_parts.{name}", str(out / name), "--seed", "1"]
            execute(teach, out / f"{name}.log")
    if "joint" in options.tables:
        prepare(out)
    done = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for stage in in_stages(runs):
            for _ in pool.map(lambda run: carry_out(run, out), stage):
                done += 1
                print(f"{done} of {len(runs)} runs after {(time.monotonic() - start) / 60:.0f} minutes", flush=True)
    write(collect(options.tables, options.seeds, out), out, options.publish)
    print(f"{(time.monotonic() - start) / 60:.0f} minutes; tables and pictures in {out}")


def write(results: dict, out: Path, publish: bool) -> None:
    """Figures as JSON, tables as markdown, pictures; to the documentation too."""
    blocks = tables(results)
    (out / "tables.md").write_text("\n\n".join(blocks.values()) + "\n")
    (out / "experiments.json").write_text(json.dumps(results, indent=1) + "\n")
    folders = [out, ROOT / "docs/images"] if publish else [out]
    for name, picture in PICTURES.items():
        for folder in folders if picture.table in results["tables"] else []:
            picture.draw(results, folder / f"experiments_{name}.png")
    if publish:
        published = ROOT / "docs/results/experiments.json"
        everything = merged(json.loads(published.read_text()), results)
        published.write_text(json.dumps(everything, indent=1) + "\n")
        blocks = tables(everything)
        readme = {"quickstart": blocks.pop("quickstart")}
        fill(ROOT / "docs/experiments.md", blocks)
        fill(ROOT / "README.md", readme)


if __name__ == "__main__":
    main()
