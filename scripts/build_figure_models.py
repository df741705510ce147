"""Rebuild the three small models of the figure world, as they lie in ``racro_pl/figure_world/assets``.

    python scripts/build_figure_models.py --seed 0 [--only captioner|reasoner|reasoner_b] [--out FOLDER]

Side by side, one thread each. Deterministic on one machine; another machine gives other last bits and, within a point
or two, the same accuracies. Weights are stored as bfloat16.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from figure_models.captioner import build_captioner
from figure_models.reasoner import RECIPES, build_reasoner
from figure_models.tokenizer import train_tokenizer

from racro_pl.figure_world.models import ASSETS

NAMES = ("captioner", *RECIPES)


def build(name: str, seed: int, folder: Path) -> None:
    """Train one model and save it."""
    torch.set_num_threads(1)
    if name == "captioner":
        build_captioner(train_tokenizer(joint=False), seed, folder)
    else:
        # Other initial weights and other rows for the second reasoner.
        build_reasoner(train_tokenizer(joint=True), seed + list(RECIPES).index(name), folder, RECIPES[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument("--out", type=Path, default=ASSETS)
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else NAMES
    # Fresh processes: a forked one would inherit torch's threads in whatever state they are.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(len(names), os.cpu_count() or 1), mp_context=context) as pool:
        for job in [pool.submit(build, name, arguments.seed, arguments.out / name) for name in names]:
            job.result()


if __name__ == "__main__":
    main()
