"""Processes that start at once: forked from one that has imported what they need and has done nothing else.

Forked from the tests' own process they would lack its threads, and torch refuses a backward pass in such a copy.
"""

import multiprocessing

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([
    "tests.fakes.ddp_fit", "tests.fakes.sharded_fit", "racro_pl.evaluation.pipeline", "racro_pl.commands.lightning",
])  # fmt: skip
