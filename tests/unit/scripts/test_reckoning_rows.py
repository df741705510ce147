"""What the reckoning world's reasoners learn from: the same rows in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
DRAWN = """
import random
from reckoning_models.rows import draw_asked
rng = random.Random(0)
print([draw_asked(rng, ("more", "sum", "two_steps")) for _ in range(300)])
"""


def drawn(hash_seed: str) -> str:
    places = os.pathsep.join((str(ROOT), str(ROOT / "scripts")))
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": places}
    done = subprocess.run([sys.executable, "-c", DRAWN], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_seed_draws_the_same_rows_in_every_process():
    """Sets of words have another order in each, as strings are hashed with a key of the process."""
    assert drawn("1") == drawn("2")
