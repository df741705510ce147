"""Rebuild the small models of the reckoning world, as they lie in ``racro_pl/reckoning_world/assets``.

    python scripts/build_reckoning_models.py --seed 0 [--only captioner|weak|middle|strong|narrow] [--out FOLDER]

Weights are stored as bfloat16. The models of the package were made by earlier forms of this script, whose rows of text
came in another order with every call: a rebuild gives others of the same kind, with which the tables of
docs/experiments.md have to be made again. Two machines differ in the last bits.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from reckoning_models.captioner import build_captioner
from reckoning_models.reasoner import RECIPES, build_reasoner

from racro_pl.figure_world.models import RECKONING_ASSETS

NAMES = ("captioner", *RECIPES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument("--out", type=Path, default=RECKONING_ASSETS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in [arguments.only] if arguments.only else NAMES:
        if name == "captioner":
            build_captioner(arguments.seed, arguments.out / name)
        else:
            build_reasoner(arguments.seed + list(RECIPES).index(name), arguments.out / name, RECIPES[name])


if __name__ == "__main__":
    main()
