"""Shapes promised in annotations are checked while testing."""

import os

# Two OpenMP threads that spin on a shared core make small steps many times slower; must be set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook

install_import_hook(["racro_pl.losses", "racro_pl.experience"], "beartype.beartype")
