"""What tables show of captioners besides their tests.

    python -m experiment_parts.measure described OUT describing described_sum-1

writes OUT/described.json: figures by the captioner's name, which is that of a run in OUT or of another folder there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiment_parts.described import evaluate_described
from experiment_parts.evaluations import BEFORE
from experiment_parts.general import evaluate_general
from experiment_parts.reckoning import ceilings
from experiment_parts.runs import newest
from experiment_parts.sampled import Looker


def measure(kind: str, names: Sequence[str], out: Path) -> dict[str, Any]:
    """Figures of a kind, by captioner; the ceilings are those of reasoners and have no captioner."""
    if kind == "ceilings":
        return ceilings()
    if kind == "described":
        return {name: evaluate_described(str(_folder(name, out) / "adapter")) for name in names}
    if kind == "general":
        adapters = {name: None if name == BEFORE else str(_folder(name, out) / "adapter") for name in names}
        return {name: evaluate_general(adapter) for name, adapter in adapters.items()}
    looker = Looker()
    try:
        return {name: looker.look(_folder(name, out)) for name in names}
    finally:
        looker.close()


def _folder(name: str, out: Path) -> Path:
    return newest(out / name) or out / name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("ceilings", "captions", "described", "general"))
    parser.add_argument("out", type=Path, help="folder of all runs")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    found = measure(options.kind, options.names, options.out)
    (options.out / f"{options.kind}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
