"""Rebuild the two small models of the figure world, as they lie in ``racro_pl/figures/assets``.

    python scripts/build_figure_models.py --seed 0 [--only captioner|reasoner] [--out FOLDER]

Deterministic on one machine with one thread; another machine gives other last bits and, within a point or two, the
same accuracies. Weights are stored as bfloat16.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from figure_models.captioner import build_captioner
from figure_models.reasoner import build_reasoner
from figure_models.tokenizer import train_tokenizer

from racro_pl.figures.models import ASSETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("captioner", "reasoner"))
    parser.add_argument("--out", type=Path, default=ASSETS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = train_tokenizer()
    if arguments.only != "reasoner":
        build_captioner(tokenizer, arguments.seed, arguments.out / "captioner")
    if arguments.only != "captioner":
        build_reasoner(tokenizer, arguments.seed, arguments.out / "reasoner")


if __name__ == "__main__":
    main()
