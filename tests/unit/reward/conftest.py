"""Fixtures of several files."""

import pytest

from racro_pl.reward.http import HttpReasoner

DEADLINE_S = 2.0
"""Of requests that nothing answers."""
PATIENT_S = 100.0
"""Of requests that are answered: a machine with more to do may let a process wait for seconds at any point."""


@pytest.fixture
def connect():
    opened = []

    def build(url, **settings):
        reasoner = HttpReasoner(url, **({"deadline_s": PATIENT_S, "backoff_s": 0.05} | settings))
        opened.append(reasoner)
        return reasoner

    yield build
    for reasoner in opened:
        reasoner.close()
